"""What encoders whose layers are BERT's around an attention of their own are built of.

A layer norm follows each residual connection. The names of the modules are those of transformers'
checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

# The first two rows of the position table stand for no position, as in RoBERTa.
POSITION_OFFSET = 2


class Embeddings(nn.Module):
    """Adds word, position and token type embeddings."""

    position_ids: Tensor

    def __init__(self, config: Any, keep_positions: bool) -> None:
        """Builds the tables.

        Args:
            config: of the model.
            keep_positions: whether the family's checkpoints hold ``position_ids``.
        """
        super().__init__()
        self.word_embeddings = nn.Embedding(
            config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(
            config.max_position_embeddings + POSITION_OFFSET, config.hidden_size
        )
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.register_buffer(
            "position_ids",
            default_positions(config.max_position_embeddings),
            persistent=keep_positions,
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Arguments as a model's forward explains and checks them; returns [B, N, hidden]."""
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        batch, length, _ = inputs_embeds.shape
        if position_ids is None:
            if length > self.position_ids.shape[1]:
                raise ValueError(
                    f"the input has {length} tokens, and the model positions for "
                    f"{self.position_ids.shape[1]} (max_position_embeddings); cut the input, with "
                    "a tokenizer by truncation=True and max_length"
                )
            position_ids = self.position_ids[:, :length]
        if token_type_ids is None:
            token_type_ids = torch.zeros(
                batch, length, dtype=torch.long, device=inputs_embeds.device
            )
        embeddings = inputs_embeds + self.token_type_embeddings(token_type_ids)
        embeddings = embeddings + self.position_embeddings(position_ids)
        out: Tensor = self.dropout(self.LayerNorm(embeddings))
        return out


def default_positions(count: int) -> Tensor:
    """Rows of the position table for the first ``count`` tokens of a sequence, [1, count]."""
    return torch.arange(count)[None] + POSITION_OFFSET


class Residual(nn.Module):
    """Mixes channels and adds what came in: the end of both halves of a layer."""

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, hidden_states: Tensor) -> Tensor:
        """[B, N, channels] and [B, N, hidden] to [B, N, hidden]."""
        out: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + hidden_states)
        return out


class Intermediate(nn.Module):
    """The first half of a layer's feed-forward part."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, N, intermediate]."""
        out: Tensor = self.intermediate_act_fn(self.dense(hidden_states))
        return out


class Attention(nn.Module):
    """A family's attention with its residual connection."""

    def __init__(self, config: Any, attention: nn.Module) -> None:
        super().__init__()
        self.self = attention
        self.output = Residual(config, config.hidden_size)

    def forward(self, hidden_states: Tensor, *args: Any) -> tuple[Tensor, Tensor | None]:
        """[B, N, hidden] to the same, and the matrices; further arguments are the attention's."""
        attended, weights = self.self(hidden_states, *args)
        return self.output(attended, hidden_states), weights


class Layer(GradientCheckpointingLayer):
    """Attention, then the feed-forward part, the latter in chunks of tokens where asked for."""

    def __init__(self, config: Any, attention: nn.Module) -> None:
        super().__init__()
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.attention = Attention(config, attention)
        self.intermediate = Intermediate(config)
        self.output = Residual(config, config.intermediate_size)

    def forward(self, hidden_states: Tensor, *args: Any) -> tuple[Tensor, Tensor | None]:
        """[B, N, hidden] to the same, and the matrices; further arguments are the attention's."""
        attended, weights = self.attention(hidden_states, *args)
        if self.chunk_size_feed_forward:
            chunks = attended.split(self.chunk_size_feed_forward, dim=1)
            return torch.cat([self._feed_forward(chunk) for chunk in chunks], dim=1), weights
        return self._feed_forward(attended), weights

    def _feed_forward(self, attended: Tensor) -> Tensor:
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out


class Encoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: Any, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList(layers)

    def forward(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        head_mask: Tensor | None = None,
    ) -> BaseModelOutputWithCrossAttentions:
        """Runs all layers.

        Args:
            hidden_states: [B, N, hidden].
            padding_mask: bool [B, N], True = a real token.
            output_attentions: whether to keep every layer's matrices.
            output_hidden_states: whether to keep what goes into every layer, and the last output.
            head_mask: [layers, H], for attention that takes one.

        Returns:
            transformers' output object.
        """
        all_hidden_states, all_attentions = [hidden_states], []
        for index, layer in enumerate(self.layer):
            more = () if head_mask is None else (head_mask[index],)
            # By position: gradient checkpointing looks for tensors there.
            hidden_states, weights = layer(hidden_states, padding_mask, output_attentions, *more)
            all_hidden_states.append(hidden_states)
            all_attentions.append(weights)
        return BaseModelOutputWithCrossAttentions(
            last_hidden_state=hidden_states,
            hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
        )
