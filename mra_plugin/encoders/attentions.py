"""Exact attention and others in one encoder, side by side."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from mra_plugin.adapters.patching import patch
from mra_plugin.adapters.transformers.config_attention import MRA
from mra_plugin.adapters.transformers.modules import copy_with_same_weights
from mra_plugin.errors import UserError
from mra_plugin.registry import get_attention

from .exact import APPROXIMATE, EXACT

# For attentions with a budget that know no presets.
_BLOCK_PER_ROW = 8


def exact_attention(model: PreTrainedModel) -> tuple[str, bool]:
    """Name of the attention of a model that `loading.load_encoder` gave, and whether it is its own.

    Args:
        model: as it was loaded.
    """
    if model.config.model_type in APPROXIMATE:
        return EXACT, False
    return model.config._attn_implementation, True


def with_attention(
    model: PreTrainedModel, name: str, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A copy of the model, with the same weights in memory, that uses another attention.

    Args:
        model: as `loading.load_encoder` gives it.
        name: a registered backend.
        options: of MRA attention, as `mra_plugin.patch` takes them; other backends with a budget
            get ``"block_per_row"`` alone.

    Returns:
        (the copy, the parameters that the backend was given: those that its config holds).

    Raises:
        UserError: the model can't take this attention.
    """
    params = dict(options)
    if name != MRA:
        accepted = "budget" in get_attention(name).serves
        params = {"block_per_row": options.get("block_per_row", _BLOCK_PER_ROW)} if accepted else {}
    try:
        twin = patch(copy_with_same_weights(model), attention=name, **params)
    except (TypeError, ValueError) as error:
        raise UserError(f"can't use {name!r} in this model: {error}") from None
    return twin, dict(twin.config.mra) if name == MRA else params
