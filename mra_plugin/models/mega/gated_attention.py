"""The main part of a layer: a moving average, and attention gated by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import Inputs, whole_attention, with_features
from .chunks import chunked_attention
from .continuation import Following, following_attention
from .layer_parts import positional_bias
from .moving_average import MegaMultiDimensionDampedEma
from .norms import MegaDropout, MegaSequenceNorm
from .positions import Bias, RotaryBias
from .recomputing import recomputed

if TYPE_CHECKING:
    from .cache import MegaCacheLayer
    from .configuration import MegaConfig

# What transformers may call the model's own attention.
OWN = ("eager", "sdpa")


class Before(NamedTuple):
    """What a layer goes on from, and what it is to keep.

    Attributes:
        held: what the layer kept of the tokens that were read.
        read: how many these are.
        real: bool [B, T + L], True at a real token, of those that are held and the new ones; None
            if all are.
        leading: int [B], tokens of padding in front; None if there are none.
        keep: whether the layer is to keep the new tokens.
    """

    held: MegaCacheLayer
    read: int
    real: Tensor | None
    leading: Tensor | None
    keep: bool


class MegaMovingAverageGatedAttention(nn.Module):
    """A moving average of the channels, attention of one head, and gates. Mega, section 3."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        size, shared = config.hidden_size, config.shared_representation_size
        by_feature = config.use_feature_dropout
        self.config = config
        self.is_causal = config.is_decoder
        self.prenorm = config.normalize_before_mega
        self.function = config.attention_activation
        self.activation = ACT2FN[config.activation]
        self.sizes = (size, shared, config.intermediate_size, size)
        self.norm = MegaSequenceNorm(config)
        self.dropout = MegaDropout(config.dropout_prob, by_feature)
        self.hidden_dropout = MegaDropout(config.hidden_dropout_prob, by_feature)
        self.attention_dropout = float(config.attention_probs_dropout_prob)
        self.ema_gate = MegaMultiDimensionDampedEma(config)
        self.v_proj = nn.Linear(size, config.intermediate_size)
        self.mx_proj = nn.Linear(size, sum(self.sizes))
        self.h_proj = nn.Linear(config.intermediate_size, size)
        self.qk_weight = nn.Parameter(torch.empty(2, shared))
        self.qk_bias = nn.Parameter(torch.empty(2, shared))
        self.rel_pos_bias = positional_bias(config)

    def forward(
        self,
        x: Tensor,
        padding: Tensor | None = None,
        before: Before | None = None,
        wants_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Averages, attends, and mixes what comes with what was there.

        Args:
            x: [B, L, D].
            padding: bool [B, L], True = a real token; None if all are.
            before: what a decoder goes on from.
            wants_weights: whether the matrices are to be given out.

        Returns:
            [B, L, D], and the matrices [B, chunks, C, C] ([B, 1, L, T + L] behind other tokens) or
            None.
        """
        normed = self.norm(x) if self.prenorm else x
        average, keep = None, False
        if before is not None:
            average, keep = before.held.average, before.keep
        averaged, average = self.ema_gate(normed, padding, average, keep)
        projected = recomputed(self._project, averaged)
        if before is None:
            out, weights = recomputed(self._attended, projected, normed, padding, wants_weights)
        else:
            out, weights = self._attend_behind(projected, normed, padding, before, wants_weights)
            if keep:
                before.held.average = average
        mixed = recomputed(self._mix, x, projected, out)
        return mixed if self.prenorm else self.norm(mixed), weights

    def _project(self, averaged: Tensor) -> Tensor:
        """The averages' part in everything, [B, L, D + S + E + D]."""
        out: Tensor = self.mx_proj(self.dropout(functional.silu(averaged)))
        return out

    def _attended(
        self, projected: Tensor, normed: Tensor, padding: Tensor | None, wants_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        query, key, value = self._inputs(projected, normed)
        inputs = Inputs(query, key, self.hidden_dropout(value), padding)
        return self._attend(inputs, wants_weights)

    def _inputs(self, projected: Tensor, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query and key [B, L, S], value [B, L, E]."""
        shared = functional.silu(projected.split(self.sizes, -1)[1])
        query, key = (shared * self.qk_weight[i] + self.qk_bias[i] for i in range(2))
        return query, key, self.activation(self.v_proj(normed))

    def _mix(self, x: Tensor, projected: Tensor, out: Tensor) -> Tensor:
        """Gates what attention gave [B, L, E], and moves ``x`` towards it."""
        update, _, gate, candidate = projected.split(self.sizes, -1)
        gated = out * functional.silu(gate)
        new = self.dropout(self.activation(candidate + self.h_proj(gated)))
        return torch.lerp(x, new.to(x.dtype), torch.sigmoid(update).to(x.dtype))

    @property
    def _chunk(self) -> int | None:
        """Tokens that attention sees at once; None: all."""
        if self.config.attend_across_chunks:
            self.config.check_across_chunks()
        return self.config.chunk_size if self.config.in_chunks else None

    def _attend(self, inputs: Inputs, wants_weights: bool) -> tuple[Tensor, Tensor | None]:
        own = self.config._attn_implementation in (None, *OWN)
        positions: Bias = self.rel_pos_bias()

        def attend(chunks: Inputs) -> tuple[Tensor, Tensor | None]:
            if not own:
                return self._attend_by_choice(chunks, positions, wants_weights)
            dropout = self.attention_dropout if self.training else 0.0
            return whole_attention(
                self.function, chunks, positions, self.is_causal, dropout, wants_weights
            )

        return chunked_attention(inputs, self._chunk, attend)

    def _attend_by_choice(
        self, inputs: Inputs, positions: Bias, wants_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attends with what `mra_plugin.patch` put in, by transformers' attention interface."""
        if self.function != "softmax":
            raise ValueError(
                f"attention_activation={self.function!r} is no softmax, and no attention of the "
                "registry computes it; mra_plugin.unpatch(model) brings it back"
            )
        query, key = inputs.query, inputs.key
        scale, bias = query.shape[-1] ** -0.5, None
        if isinstance(positions, RotaryBias):
            query, key = with_features(query, key, positions)
            scale = 1.0
        else:
            bias = positions.between(query.shape[1], key.shape[1])
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        out, weights = attend(
            self,
            query[:, None],
            key[:, None],
            inputs.value[:, None].to(query.dtype),
            inputs.padding,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=scale,
            score_bias=bias,
            output_attentions=wants_weights,
        )
        return out[:, :, 0], weights[:, 0] if wants_weights else None

    def _attend_behind(
        self,
        projected: Tensor,
        normed: Tensor,
        padding: Tensor | None,
        before: Before,
        wants_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        query, key, value = self._inputs(projected, normed)
        if before.read:
            keys, values = before.held.with_new(key[:, None], value[:, None])
            inputs = Following(
                query, keys[:, 0], values[:, 0], before.real, before.leading, before.read
            )
            found = following_attention(
                self.function, inputs, self.rel_pos_bias(), self._chunk, wants_weights
            )
        else:
            found = self._attend(
                Inputs(query, key, self.hidden_dropout(value), padding), wants_weights
            )
        if before.keep:
            before.held.update(key[:, None], value[:, None])
        return found
