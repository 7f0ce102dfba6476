"""Whether a converted model computes what it should, and how close it is to exact attention."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mra_plugin.adapters.patching import patch
from mra_plugin.encoders.closeness import Closeness, cosines, hidden_states, reading
from mra_plugin.encoders.exact import make_exact
from mra_plugin.ops import MRAOptions

# Of a vocabulary's size each: a head need not speak at every token.
_HEAD_TOKENS = 64


def outputs(model: PreTrainedModel, input_ids: Sequence[int]) -> dict[str, Tensor]:
    """What a model makes of a text.

    Args:
        model: in evaluation mode.
        input_ids: the text, special tokens included.

    Returns:
        ``hidden states``, [1, N, hidden], and what the model gives for the first few tokens, by
        the names of its output.
    """
    found = {"hidden states": _hidden_states(model, input_ids)}
    inputs = _inputs(model, input_ids[:_HEAD_TOKENS])
    if type(model).__name__.endswith("ForMultipleChoice"):
        inputs = {name: ids[:, None] for name, ids in inputs.items()}
    with torch.inference_mode():
        given = model(**inputs)
    found.update({name: one for name, one in given.items() if isinstance(one, Tensor)})
    return found


def greatest_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """The greatest difference between outputs, relative to the greatest value of each.

    Args:
        expected: as `outputs` gives them.
        found: likewise; those that only one of the two has do not count.

    Returns:
        A share; infinite where a number is not finite.
    """
    differences = [
        0.0 if torch.equal(found[name], one) else _relative(one, found[name])
        for name, one in expected.items()
        if name in found
    ]
    worst = max(differences, key=lambda one: one if one == one else float("inf"))
    return worst if worst == worst else float("inf")


def give_full_budget(
    model: PreTrainedModel, attention: str, params: Mapping[str, Any], tokens: int
) -> None:
    """Has a model attend exactly up to ``tokens`` tokens, with its own attention where it can be.

    Args:
        model: changed in place.
        attention: name of its attention. Of MRA it is known what a full budget is; exact attention
            takes the place of others.
        params: its parameters.
        tokens: longest input.
    """
    if attention != "mra":
        make_exact(model)
        return

    def option(name: str) -> Any:
        return params.get(name, getattr(model.config, name, getattr(MRAOptions, name)))

    blocks = -(-tokens // option("block_size"))
    budget = {"block_per_row": blocks}
    if option("selection") == "global":
        budget["num_blocks"] = blocks**2
    patch(model, "mra", **{**params, **budget})


def closeness(
    model: PreTrainedModel,
    attention: str,
    params: Mapping[str, Any],
    cut: Callable[[int], list[int]],
    lengths: Sequence[int],
    started: Callable[[str], None],
) -> list[Closeness]:
    """Sets a model beside itself with exact attention.

    Args:
        model: changed in place; ends with the attention that is named.
        attention: name of a registered backend.
        params: its parameters.
        cut: gives a text of so many tokens.
        lengths: numbers of tokens.
        started: is told what is going on.

    Returns:
        One for each length.
    """
    found = []
    for length in lengths:
        input_ids = cut(length)
        started(f"{length} tokens: exact attention")
        exact = _hidden_states(make_exact(model), input_ids)
        started(f"{length} tokens: {attention}")
        other = _hidden_states(patch(model, attention, **params), input_ids)
        mask = torch.ones(exact.shape[:2], device=exact.device)
        found.append(Closeness(length, *cosines(exact, other, mask)))
    return found


def _relative(expected: Tensor, found: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _hidden_states(model: PreTrainedModel, input_ids: Sequence[int]) -> Tensor:
    with reading(len(input_ids)):
        return hidden_states(model.base_model, **_inputs(model, input_ids))


def _inputs(model: PreTrainedModel, input_ids: Sequence[int]) -> dict[str, Tensor]:
    ids = torch.tensor([list(input_ids)], device=model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
