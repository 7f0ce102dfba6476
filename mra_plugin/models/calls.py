"""What the forwards of all models do with their arguments before and after they compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def check_inputs(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, choices: bool = False
) -> torch.Size:
    """Checks that exactly one of the two is there, in its shape, and returns [B, N].

    Args:
        input_ids: [B, N].
        inputs_embeds: [B, N, hidden].
        choices: whether both have an axis of choices after the batch, which is returned too.

    Raises:
        ValueError: both or none are given, or one has another shape.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "none" if input_ids is None else "both"
        raise ValueError(f"give either input_ids or inputs_embeds, got {given}")
    axes = "[batch, choices, tokens]" if choices else "[batch, tokens]"
    if input_ids is not None:
        name, given_shape, shape = "input_ids", input_ids.shape, input_ids.shape
    else:
        assert inputs_embeds is not None
        name, given_shape, shape = "inputs_embeds", inputs_embeds.shape, inputs_embeds.shape[:-1]
        axes = f"{axes[:-1]}, hidden]"
    if len(shape) != (3 if choices else 2):
        raise ValueError(f"{name} must have shape {axes}, got {tuple(given_shape)}")
    return shape


def padding_mask(attention_mask: Tensor | None, batch: int, length: int) -> Tensor | None:
    """The mask that a model was called with, as bool [B, N], True = a real token.

    Raises:
        ValueError: it has another shape than [B, N].
    """
    if attention_mask is None:
        return None
    if attention_mask.shape != (batch, length):
        raise ValueError(
            f"attention_mask must have shape {(batch, length)}, 1 = a real token, "
            f"got {tuple(attention_mask.shape)}"
        )
    return attention_mask.bool()


def check_span(start_positions: Tensor | None, end_positions: Tensor | None) -> None:
    """Checks that the labels of a span are both there, or none.

    Raises:
        ValueError: one is missing.
    """
    if (start_positions is None) != (end_positions is None):
        missing = "start_positions" if start_positions is None else "end_positions"
        raise ValueError(f"start_positions and end_positions go together, {missing} is missing")


def merge_choices(x: Tensor | None) -> Tensor | None:
    """[B, choices, N, ...] to [B * choices, N, ...]; positions may lack the first axes."""
    return x if x is None or x.ndim < 3 else x.flatten(0, 1)


def as_asked(output: Any, config: Any, return_dict: bool | None) -> Any:
    """An output object or, where the call or else the config says so, the tuple that it holds."""
    wanted = config.return_dict if return_dict is None else return_dict
    return output if wanted else output.to_tuple()
