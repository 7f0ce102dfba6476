"""The encoder that ``--model`` names."""

from typing import Any

import torch
from transformers import PreTrainedModel

from mra_plugin.encoders import loading
from mra_plugin.encoders.demo import demo_model


def load_encoder(
    name: str | None, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, Any]:
    """Loads it with exact attention, and its tokenizer; messages say ``--model``.

    Args:
        name: what ``--model`` was given; None means the demo's.
        device: where to put it.
        dtype: of its weights.

    Returns:
        (model in evaluation mode, tokenizer).

    Raises:
        UserError: see `loading.load_encoder`.
    """
    return loading.load_encoder(demo_model() if name is None else name, device, dtype, "--model")
