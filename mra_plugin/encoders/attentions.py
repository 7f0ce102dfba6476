"""Exact attention and others in one encoder, side by side."""

from typing import Any

from transformers import PreTrainedModel

from mra_plugin.adapters.patching import patch
from mra_plugin.adapters.transformers.modules import copy_with_same_weights
from mra_plugin.errors import UserError
from mra_plugin.registry import get_attention

from .exact import APPROXIMATE, EXACT


def exact_attention(model: PreTrainedModel) -> tuple[str, bool]:
    """Name of the attention of a model that `loading.load_encoder` gave, and whether it is its own.

    Args:
        model: as it was loaded.
    """
    if model.config.model_type in APPROXIMATE:
        return EXACT, False
    return model.config._attn_implementation, True


def with_attention(
    model: PreTrainedModel, name: str, block_per_row: int
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A copy of the model, with the same weights in memory, that uses another attention.

    Args:
        model: as `loading.load_encoder` gives it.
        name: a registered backend.
        block_per_row: parameter for backends that have it.

    Returns:
        (the copy, the parameters that the backend was given).

    Raises:
        UserError: the model can't take this attention.
    """
    accepted = "budget" in get_attention(name).serves
    params = {"block_per_row": block_per_row} if accepted else {}
    try:
        twin = patch(copy_with_same_weights(model), attention=name, **params)
    except (TypeError, ValueError) as error:
        raise UserError(f"can't use {name!r} in this model: {error}") from None
    return twin, params
