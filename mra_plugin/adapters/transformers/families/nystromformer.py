"""transformers' Nyströmformer: any attention, any length, masks, and its convolution kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mra_plugin.backends.nystrom import convolve_values

from ..config_attention import (
    REGISTRY,
    BuiltAttention,
    attention_for,
    attention_with,
    dense_weights,
)
from ..masks import read_model_mask
from .class_patches import project
from .table import Layers


def _attend(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    output_attentions: bool = False,
) -> tuple[Tensor, ...]:
    """The forward of a layer: output [B, N, hidden], and the matrices if they are asked for."""
    query, key, value = project(self, hidden_states)
    padding = read_model_mask(attention_mask, hidden_states)
    attention = _attention(self.config)
    context = attention.attend(query, key, value, padding)
    if self.conv_kernel_size is not None:
        context = context + convolve_values(self.conv, value, padding)
    out = context.transpose(1, 2).flatten(2)
    if not output_attentions:
        return (out,)
    return out, dense_weights(attention, query, key, padding, None, None)


def _attention(config: Any) -> BuiltAttention:
    attention = attention_for(config)  # refuses wrong parameters
    stored = getattr(config, REGISTRY, None) or {}
    if config._attn_implementation != REGISTRY or stored["name"] != "nystrom":
        return attention
    params = {option: value for option, value in stored.items() if option != "name"}
    return attention_with("nystrom", {"num_landmarks": config.num_landmarks, **params})


LAYERS = Layers(forward=_attend, project=project)
