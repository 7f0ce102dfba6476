"""One layer of a model."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration import MegaConfig
from .cross_attention import MegaGatedCrossAttention
from .gated_attention import Before, MegaMovingAverageGatedAttention
from .layer_parts import MegaNormalizedFeedForwardNetwork


class OfEncoder(NamedTuple):
    """What cross attention reads.

    Attributes:
        states: [B, Ls, D]; None where a cache holds what is made of them.
        mask: bool [B, Ls], True = a real token; None if all are.
        position: of a decoder's first token, a number or int [B].
    """

    states: Tensor | None
    mask: Tensor | None
    position: Tensor | int


class MegaBlock(GradientCheckpointingLayer):
    """A layer: gated attention, cross attention if there is any, then the feed-forward part."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.mega_layer = MegaMovingAverageGatedAttention(config)
        self.nffn = MegaNormalizedFeedForwardNetwork(config) if config.use_normalized_ffn else None
        self.cross_attn = MegaGatedCrossAttention(config) if config.add_cross_attention else None

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        before: Before | None = None,
        of_encoder: OfEncoder | None = None,
        wants_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """[B, L, D] to the same, and the matrices of attention and cross attention, or None."""
        x, weights = self.mega_layer(x, padding, before, wants_weights)
        cross_weights = None
        if self.cross_attn is not None and of_encoder is not None:
            held, keep = (None, False) if before is None else (before.held, before.keep)
            x, cross_weights = self.cross_attn(
                x, *of_encoder, held=held, keep=keep, wants_weights=wants_weights
            )
        if self.nffn is not None:
            x = self.nffn(x)
        return x, weights, cross_weights
