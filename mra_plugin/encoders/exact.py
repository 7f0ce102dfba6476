"""Exact attention in any encoder that can take another attention."""

from typing import TypeVar

from transformers import PreTrainedModel

from mra_plugin.adapters.patching import patch, unpatch
from mra_plugin.adapters.transformers.families.table import FAMILIES
from mra_plugin.errors import UserError

Model = TypeVar("Model", bound=PreTrainedModel)

# Model types whose own attention approximates: they are exact with another one in its place.
APPROXIMATE = tuple(family.model_type for family in FAMILIES if family.approximates)
EXACT = "sdpa"


def make_exact(model: Model) -> Model:
    """Gives an encoder exact attention: its own, or where that approximates, PyTorch's.

    Args:
        model: an encoder, with whatever attention; changed in place.

    Returns:
        ``model``.

    Raises:
        UserError: it is an approximating model with relative positions.
    """
    unpatch(model)
    if model.config.model_type not in APPROXIMATE:
        return model
    positions = getattr(model.config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise UserError(
            f"it has relative positions (position_embedding_type={positions!r}), which no exact "
            "attention here knows"
        )
    return patch(model, attention=EXACT)
