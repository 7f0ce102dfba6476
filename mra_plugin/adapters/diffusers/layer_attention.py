"""What a layer's processor calls in place of its own attention."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .choice import Choice


class LayerAttention:
    """Takes over self-attention over all of a layer's tokens, and leaves everything else exact.

    Exact stay attention to other tokens, causal attention, dropout, and masks that are not padding.
    """

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self._tokens = 0
        self._others = 0

    def note_tokens(self, states: Any, other_states: Any) -> None:
        """Takes note of what a layer is called with, before it attends.

        Args:
            states: [B, N, channels] or [B, channels, height, width].
            other_states: of a second sequence, or None.
        """
        self._tokens = _tokens(states)
        self._others = _tokens(other_states)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """In place of ``scaled_dot_product_attention``; tensors [B, H, N, D]."""
        plain = not is_causal and not dropout_p
        if plain and self._is_served(query.shape[2], key.shape[2], attn_mask):
            return self._served(query, key, value, attn_mask, scale)
        return scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )

    def dispatched(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
        attention_kwargs: dict[str, Any] | None = None,
        *,
        backend: Any = None,
        parallel_config: Any = None,
    ) -> Tensor:
        """In place of ``dispatch_attention_fn``; tensors [B, N, H, D]."""
        plain = not is_causal and not dropout_p and not attention_kwargs and parallel_config is None
        mask = attn_mask
        if mask is not None and mask.shape == (query.shape[0], key.shape[1]):
            mask = mask[:, None, None]
        if plain and self._is_served(query.shape[1], key.shape[1], mask):
            query, key, value = (x.transpose(1, 2) for x in (query, key, value))
            return self._served(query, key, value, mask, scale).transpose(1, 2)
        out: Tensor = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask,
            dropout_p,
            is_causal,
            scale,
            enable_gqa,
            attention_kwargs,
            backend=backend,
            parallel_config=parallel_config,
        )
        return out

    def _is_served(self, queries: int, keys: int, mask: Tensor | None) -> bool:
        """Whether it is self-attention, under no mask but padding.

        Queries and keys are both all of the layer's tokens then; of a second sequence, text beside
        the picture, all are there or those that are real. Where that is as long as the first,
        either might be meant by tokens of one.
        """
        if self.choice.is_exact_now() or queries != keys or not _is_padding(mask):
            return False
        either = queries == self._tokens == self._others
        return self._tokens <= queries <= self._tokens + self._others and not either

    def _served(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float | None,
    ) -> Tensor:
        if key.shape[1] != query.shape[1]:  # grouped key heads
            groups = query.shape[1] // key.shape[1]
            key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
        padding = None if mask is None else mask[:, 0, 0].expand(query.shape[0], -1)
        return self.choice.attend(query, key, value, padding, scale)


def _tokens(states: Any) -> int:
    if not isinstance(states, Tensor) or states.ndim < 3:
        return 0
    return states.shape[1] if states.ndim == 3 else states.shape[-2] * states.shape[-1]


def _is_padding(mask: Tensor | None) -> bool:
    """Whether a mask says the same of a key to all heads and queries."""
    if mask is None:
        return True
    return mask.dtype == torch.bool and mask.ndim == 4 and mask.shape[1:3] == (1, 1)
