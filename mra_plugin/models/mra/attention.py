"""The attention part of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mra_plugin.adapters.transformers.config_attention import REGISTRY, attention_for, dense_weights
from mra_plugin.adapters.transformers.families.table import mra_scale
from mra_plugin.ops import MRAOptions, mra_attention, mra_attention_weights

from .relative import relative_weights

if TYPE_CHECKING:
    from .configuration import MraConfig


class MraSelfAttention(nn.Module):
    """Projects to heads and attends as the config says."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.config = config
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.scale = mra_scale(self.attention_head_size)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.position_embedding_type = config.position_embedding_type
        if self.position_embedding_type != "absolute":
            self.distance_embedding = nn.Embedding(
                2 * config.max_position_embeddings - 1, self.attention_head_size
            )

    def forward(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        output_attentions: bool = False,
        head_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends.

        Args:
            hidden_states: [B, N, hidden].
            padding_mask: bool [B, N], True = a real token.
            output_attentions: whether the matrices are wanted.
            head_mask: factor of each head's attention matrix, [H].

        Returns:
            Output [B, N, hidden], and the matrices [B, H, N, N] or None.
        """
        query, key, value = (
            torch.unflatten(projection(hidden_states), -1, (-1, self.attention_head_size))
            .transpose(1, 2)
            .contiguous()
            for projection in (self.query, self.key, self.value)
        )  # [B, H, N, D]
        if output_attentions or self.position_embedding_type != "absolute":
            weights = self._weights(query, key, padding_mask)
            if head_mask is not None:
                weights = weights * head_mask[:, None, None].to(weights.dtype)
            # From the matrices that are given out, so that they have gradients.
            out = torch.matmul(weights, value)
            return out.transpose(1, 2).flatten(2), weights if output_attentions else None
        out = self._attend(query, key, value, padding_mask)
        if head_mask is not None:
            # A factor of a head's matrix is one of its output.
            out = out * head_mask[:, None, None].to(out.dtype)
        return out.transpose(1, 2).flatten(2), None

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, padding_mask: Tensor | None
    ) -> Tensor:
        """Output [B, H, N, D]."""
        if self._patched:
            attend = attention_for(self.config).attend
            return attend(query, key, value, padding_mask, scale=self.scale)
        options = self.config.attention_options()
        out: Tensor = mra_attention(query, key, value, padding_mask, scale=self.scale, **options)
        return out

    def _weights(self, query: Tensor, key: Tensor, padding_mask: Tensor | None) -> Tensor:
        """The dense matrices [B, H, N, N] that the output is made with."""
        if self._patched:
            attention = attention_for(self.config)
            if self.position_embedding_type != "absolute":
                raise ValueError(
                    f"only MRA attention knows relative positions (position_embedding_type="
                    f"{self.position_embedding_type!r}); mra_plugin.unpatch(model) brings it back"
                )
            return dense_weights(attention, query, key, padding_mask, None, self.scale)
        options = self.config.attention_options()
        options.pop("impl", None)
        if self.position_embedding_type == "absolute":
            return mra_attention_weights(query, key, padding_mask, scale=self.scale, **options)
        return relative_weights(
            query,
            key,
            self.distance_embedding.weight,
            padding_mask,
            MRAOptions(**options),
            self.scale,
            with_key=self.position_embedding_type == "relative_key_query",
        )

    @property
    def _patched(self) -> bool:
        """Whether `mra_plugin.patch` put another attention of the registry in."""
        patched: bool = self.config._attn_implementation == REGISTRY
        return patched
