"""The masks that pass from a transformers model to its attention layers.

Three things can reach a layer: None (every token is real), a padding mask [B, 1, 1, Nk], and a
local mask, which says in addition how far a sliding-window layer sees. All else is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    or_masks,
    prepare_padding_mask,
)

_EITHER = or_masks(causal_mask_function)


def make_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_bidirectional_skip: bool = False,
    device: torch.device | str = "cpu",
    config: Any = None,
    **kwargs: Any,
) -> Tensor | None:
    """Makes the mask for the attention layers; transformers' mask interface.

    Never looks into the mask, so it neither waits for the device nor breaks a graph.

    Args:
        batch_size: B.
        q_length: Nq.
        kv_length: Nk.
        q_offset: position of the first query.
        kv_offset: position of the first key.
        mask_function: transformers' description of the pattern.
        attention_mask: [B, positions], True at a real token; None if all are real.
        local_size: how many positions to each side a sliding-window layer sees.
        allow_is_bidirectional_skip: whether None may stand for a mask that hides nothing; not set
            for causal patterns, nor for those with additions of the model's own.
        device: where to make the mask.
        config: of the model.
        **kwargs: what other implementations need.

    Returns:
        None, a padding mask [B, 1, 1, Nk], or a local mask; `read_mask` reads it.

    Raises:
        ValueError: the pattern is not plain bidirectional padding.
    """
    # transformers allows to skip a local mask only if nothing was added to it.
    local = local_size is not None and allow_is_bidirectional_skip
    if _is_turned(mask_function, config):
        # The model's own window is exclusive, transformers' bidirectional one inclusive.
        local_size = None if local_size is None else local_size - 1
    elif not (local or mask_function is bidirectional_mask_function):
        raise ValueError(
            "this attention is bidirectional and takes plain padding masks only, but the model "
            "asks for a causal, packed, blockwise or custom mask; load the model with "
            'attn_implementation="sdpa"'
        )
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)
    if padding is not None:
        if padding.ndim != 2:
            raise ValueError(
                f"attention_mask must have the shape [batch, tokens], got {list(padding.shape)}"
            )
        padding = padding[:, kv_offset : kv_offset + kv_length]
    if local_size is None:
        if padding is None and allow_is_bidirectional_skip:
            return None
        if padding is None:  # the model does something with the mask
            padding = torch.ones(batch_size, kv_length, dtype=torch.bool, device=device)
        # Four axes, as some models repeat the mask over heads and queries for layers of their own.
        return padding[:, None, None, :]
    if q_length != kv_length:
        raise ValueError(
            f"sliding-window layers need as many keys as queries, got {kv_length} and {q_length}"
        )
    if padding is None:
        padding = torch.ones(batch_size, kv_length, dtype=torch.bool, device=device)
    # The layer has to know its window from the mask, as not every model tells it to the attention
    # function, and some tell another one. The size of an axis survives moves and compilation.
    return padding[:, None, None, None, :].expand(-1, 1, 1, local_size + 1, -1)


def _is_turned(mask_function: Callable[..., Any], config: Any) -> bool:
    """Whether a causal pattern is made a bidirectional one by what the model adds to it.

    So do models that heed ``use_bidirectional_attention`` in their config; which they are is
    `support`'s business. In packed sequences that pattern is not the outermost one.
    """
    turned = getattr(config, "use_bidirectional_attention", None) is True
    # By name, which torch.compile can trace.
    return turned and getattr(mask_function, "__name__", None) == _EITHER.__name__


def read_mask(
    attention_mask: object, key: Tensor, broadcasts: bool = False
) -> tuple[Tensor | None, int | None]:
    """Takes apart what `make_mask` made.

    Args:
        attention_mask: the mask that a layer was given.
        key: [B, H, Nk, D].
        broadcasts: whether the model makes its mask itself, to be added to the scores: 0 at a real
            token, and very negative elsewhere.

    Returns:
        The padding mask, bool [B, Nk] or None, and the reach of a sliding-window layer, or None
        for a layer that sees everything.

    Raises:
        ValueError: it is no plain padding mask.
    """
    if attention_mask is None:
        return None, None
    batch, tokens = key.shape[0], key.shape[2]
    if isinstance(attention_mask, Tensor) and attention_mask.is_floating_point():
        if broadcasts and attention_mask.shape == (batch, 1, 1, tokens):
            return attention_mask[:, 0, 0, :] == 0, None
    elif isinstance(attention_mask, Tensor):
        if attention_mask.shape in ((batch, tokens), (batch, 1, 1, tokens)):
            return attention_mask.view(batch, tokens).bool(), None
        if attention_mask.ndim == 5 and attention_mask.shape[4] == tokens:
            return attention_mask[:, 0, 0, 0, :], attention_mask.shape[3] - 1
    advice = ', load the model with attn_implementation="sdpa" for them'
    raise _not_padding(attention_mask, batch, tokens, advice)


def read_model_mask(attention_mask: object, hidden_states: Tensor) -> Tensor | None:
    """Reads the mask that a layer outside of transformers' attention interface was given.

    Args:
        attention_mask: None, [B, N] (not 0 at a real token), or [B or 1, 1, 1, N], bool or added to
            the scores (0 at a real token).
        hidden_states: [B, N, channels].

    Returns:
        bool [B, N], True at a real token, or None.

    Raises:
        ValueError: it is no plain padding mask.
    """
    if attention_mask is None:
        return None
    batch, tokens = hidden_states.shape[:2]
    if isinstance(attention_mask, Tensor):
        if attention_mask.shape == (batch, tokens):
            return attention_mask.bool()
        if attention_mask.ndim == 4 and attention_mask.shape[1:] == (1, 1, tokens):
            row = attention_mask[:, 0, 0, :]
            real = row == 0 if row.is_floating_point() else row.bool()
            return real.expand(batch, tokens)
    raise _not_padding(attention_mask, batch, tokens)


def _not_padding(attention_mask: object, batch: int, tokens: int, advice: str = "") -> ValueError:
    found = (
        f"{attention_mask.dtype} {list(attention_mask.shape)}"
        if isinstance(attention_mask, Tensor)
        else type(attention_mask).__name__
    )
    return ValueError(
        f"attention_mask must be a plain padding mask, bool [{batch}, {tokens}] at this layer, "
        f"got {found}; custom masks (4-D, causal, packed) can't be served by this attention"
        f"{advice}"
    )
