"""What a layer stack reads: words, positions and token types, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .configuration import MraConfig

# The first two rows of the position table stand for no position, as in RoBERTa.
POSITION_OFFSET = 2


class MraEmbeddings(nn.Module):
    """Adds word, position and token type embeddings."""

    position_ids: Tensor

    def __init__(self, config: MraConfig) -> None:
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
        # Checkpoints hold it.
        self.register_buffer("position_ids", default_positions(config.max_position_embeddings))

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Arguments as `MraModel.forward` explains and checks them; returns [B, N, hidden]."""
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
