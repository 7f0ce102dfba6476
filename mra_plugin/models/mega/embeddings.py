"""What tokens are read as."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers.utils import logging

from .configuration import MegaConfig

logger = logging.get_logger(__name__)


class MegaEmbeddings(nn.Module):
    """Adds word and token type embeddings; positions come in with attention."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, size, padding_idx=config.pad_token_id
        )
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, size) if config.add_token_type_embeddings else None
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Arguments as `MegaModel.forward` explains and checks them; returns [B, L, D]."""
        embeddings: Tensor = (
            self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        )
        if self.token_type_embeddings is None:
            if token_type_ids is not None and not torch.compiler.is_compiling():
                logger.warning_once(
                    "token_type_ids have no effect: the model has no table of token types "
                    "(config.add_token_type_embeddings)"
                )
            return embeddings
        if token_type_ids is None:
            return embeddings + self.token_type_embeddings.weight[0]
        typed: Tensor = embeddings + self.token_type_embeddings(token_type_ids)
        return typed
