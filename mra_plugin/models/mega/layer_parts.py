"""Parts that more than one kind of layer has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .norms import MegaDropout, MegaSequenceNorm
from .positions import (
    MegaRotaryRelativePositionalBias,
    MegaSimpleRelativePositionalBias,
)
from .recomputing import recomputed

if TYPE_CHECKING:
    from .configuration import MegaConfig


def positional_bias(
    config: MegaConfig,
) -> MegaSimpleRelativePositionalBias | MegaRotaryRelativePositionalBias:
    """Holds the bias that a config names."""
    if config.relative_positional_bias == "rotary":
        return MegaRotaryRelativePositionalBias(config.shared_representation_size)
    # Checkpoints have all rows, of which a model with chunks uses the first.
    middle = config.chunk_size if config.use_chunking else config.max_positions
    return MegaSimpleRelativePositionalBias(config.max_positions, middle)


class MegaNormalizedFeedForwardNetwork(nn.Module):
    """The feed-forward part of a layer, with its norm and its residual connection."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        by_feature = config.use_feature_dropout
        self.prenorm = config.normalize_before_ffn
        self.activation = ACT2FN[config.activation]
        self.norm = MegaSequenceNorm(config)
        self.dropout = MegaDropout(config.dropout_prob, by_feature)
        self.hidden_dropout = MegaDropout(config.nffn_activation_dropout_prob, by_feature)
        self.fc1 = nn.Linear(config.hidden_size, config.nffn_hidden_size)
        self.fc2 = nn.Linear(config.nffn_hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] to the same."""
        hidden = self.fc1(self.norm(x) if self.prenorm else x)
        out: Tensor = x + self.dropout(recomputed(self._narrow, hidden))
        return out if self.prenorm else self.norm(out)

    def _narrow(self, hidden: Tensor) -> Tensor:
        """[B, L, F] before the activation, to [B, L, D]."""
        out: Tensor = self.fc2(self.hidden_dropout(self.activation(hidden)))
        return out
