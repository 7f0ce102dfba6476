"""transformers' Nyströmformer: any attention, any length, masks, and its convolution kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..masks import read_model_mask
from .class_patches import project
from .nystromformer_layer import attend
from .table import Layers


def _forward(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    output_attentions: bool = False,
) -> tuple[Tensor, ...]:
    """The forward of a layer: output [B, N, hidden], and the matrices if they are asked for."""
    padding = read_model_mask(attention_mask, hidden_states)
    out, weights = attend(self, hidden_states, padding, output_attentions)
    return (out,) if weights is None else (out, weights)


LAYERS = Layers(forward=_forward, project=project)
