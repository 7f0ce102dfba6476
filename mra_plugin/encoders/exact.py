"""Exact attention in any encoder that can take another attention."""

from typing import TypeVar

from transformers import PreTrainedModel

import mra_plugin
from mra_plugin.errors import UserError

Model = TypeVar("Model", bound=PreTrainedModel)

# Model types whose own attention approximates: they are exact with another one in its place.
APPROXIMATE = ("mra", "nystromformer")
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
    mra_plugin.unpatch(model)
    if model.config.model_type not in APPROXIMATE:
        return model
    positions = getattr(model.config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise UserError(
            f"it has relative positions (position_embedding_type={positions!r}), which no exact "
            "attention here knows"
        )
    return mra_plugin.patch(model, attention=EXACT)
