"""Attention of a decoder's tokens to an encoder's states."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN

from .attention import fused, weights_of
from .chunks import leading_padding
from .layer_parts import positional_bias
from .norms import MegaDropout, MegaSequenceNorm

if TYPE_CHECKING:
    from .cache import MegaCacheLayer
    from .configuration import MegaConfig


class MegaGatedCrossAttention(nn.Module):
    """Attends to an encoder's states, gates what comes, and adds what it was given."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        size, shared = config.hidden_size, config.shared_representation_size
        self.sizes = (size, size, shared)
        self.function = config.attention_activation
        self.prenorm = config.normalize_before_mega
        self.attention_dropout = float(config.attention_probs_dropout_prob)
        self.activation = ACT2FN[config.activation]
        self.dropout = MegaDropout(config.dropout_prob, config.use_feature_dropout)
        self.hidden_dropout = MegaDropout(config.hidden_dropout_prob, config.use_feature_dropout)
        self.norm = MegaSequenceNorm(config)
        self.k_proj = nn.Linear(size, shared)
        self.v_proj = nn.Linear(size, size)
        self.q_proj = nn.Linear(size, sum(self.sizes))
        self.h_proj = nn.Linear(size, size)
        self.rel_pos_bias = positional_bias(config)

    def forward(
        self,
        x: Tensor,
        states: Tensor | None,
        states_mask: Tensor | None = None,
        position: Tensor | int = 0,
        held: MegaCacheLayer | None = None,
        keep: bool = False,
        wants_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends.

        Args:
            x: [B, L, D].
            states: of the encoder, [B, Ls, D].
            states_mask: bool [B, Ls], True = a real token.
            position: of the first token, a number or int [B].
            held: where keys and values of the states may be from a call before.
            keep: whether to put them there.
            wants_weights: whether the matrix is to be given out.

        Returns:
            [B, L, D], and the matrix [B, L, Ls] or None.
        """
        projected = self.q_proj(self.norm(x) if self.prenorm else x)
        update, gate, query = projected.split(self.sizes, -1)
        if held is not None and held.cross_keys is not None and held.cross_values is not None:
            key, value = held.cross_keys[:, 0], held.cross_values[:, 0]
        else:
            key, value = self.k_proj(states), self.activation(self.v_proj(states))
            if keep and held is not None:
                held.cross_keys, held.cross_values = key[:, None], value[:, None]
        out, weights = self._attend(
            query, key, self.hidden_dropout(value), states_mask, position, wants_weights
        )
        new = self.dropout(self.activation(self.h_proj(out * functional.silu(gate))))
        x = torch.lerp(x, new, torch.sigmoid(update).to(x.dtype))
        return x if self.prenorm else self.norm(x), weights

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        states_mask: Tensor | None,
        position: Tensor | int,
        wants_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        device = query.device
        row = torch.arange(query.shape[1], device=device)
        queries = row + position[:, None] if isinstance(position, Tensor) else row + position
        keys = torch.arange(key.shape[1], device=device)
        if states_mask is not None:
            keys = keys - leading_padding(states_mask)[:, None]
            queries = queries.expand(len(states_mask), -1)
        elif queries.ndim == 2:
            keys = keys.expand(len(queries), -1)
        bias = self.rel_pos_bias().at(queries, keys)
        seen = None if states_mask is None else states_mask[:, None, :]
        dropout = self.attention_dropout if self.training else 0.0
        if self.function == "softmax" and not wants_weights:
            mask = bias.to(query.dtype)
            if seen is not None:
                mask = torch.where(seen | ~seen.any(-1, keepdim=True), mask, -math.inf)
            scale = query.shape[-1] ** -0.5
            return fused(query, key, value, mask, False, scale, dropout), None
        weights = weights_of(self.function, query, key, bias, seen)
        weights = functional.dropout(weights, dropout)
        return weights @ value, weights if wants_weights else None
