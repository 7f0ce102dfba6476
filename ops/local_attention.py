"""Exact sliding-window attention, for the layers that are local by design.

Cuts the queries into blocks of the window's size, so that each needs its own block of keys and
the two beside it: time and memory grow with the length, not with its square.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

_SMALLEST_BLOCK = 16


def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    reach: int,
    scale: float | None,
) -> Tensor:
    """Attends exactly to the real tokens at most ``reach`` positions away.

    Args:
        query: [B, H, N, D].
        key: [B, H, N, D].
        value: [B, H, N, Dv].
        key_padding_mask: bool [B, N], True at a real token.
        reach: how many positions to each side a query sees.
        scale: factor on the logits; None means 1/√D.

    Returns:
        [B, H, N, Dv]; what a query gives that sees no real key is finite and means nothing.
    """
    batch, heads, length, _ = query.shape
    device = query.device
    size = max(min(reach, length), _SMALLEST_BLOCK)
    tail = -length % size

    def in_blocks(tokens: Tensor, before: int, after: int) -> Tensor:
        # [B, H, N, D] -> [B, H, blocks, size, D]
        padded = pad(tokens, (0, 0, before, after))
        count = padded.shape[2] // size
        return padded.reshape(*padded.shape[:2], count, size, padded.shape[3])

    def with_neighbours(tokens: Tensor) -> Tensor:
        # [B, H, N, D] -> [B, H, blocks, 3 * size, D]
        blocks = in_blocks(tokens, size, size + tail)
        return torch.cat([blocks[:, :, :-2], blocks[:, :, 1:-1], blocks[:, :, 2:]], dim=3)

    if key_padding_mask is None:
        key_padding_mask = torch.ones(batch, length, dtype=torch.bool, device=device)
    # [B, blocks, 1, 3 * size]
    real = with_neighbours(key_padding_mask[:, None, :, None])[:, 0, :, :, 0].unsqueeze(2)
    own = torch.arange(size, 2 * size, device=device)[:, None]
    other = torch.arange(3 * size, device=device)
    allowed = ((own - other).abs() <= reach) & real
    # A query at padding that sees no real key sees itself: an empty row would be NaN.
    allowed = allowed | ((own == other) & ~allowed.any(-1, keepdim=True))

    def batched(blocks: Tensor) -> Tensor:
        # [B, H, blocks, n, D] -> [B * blocks, H, n, D]
        return blocks.transpose(1, 2).flatten(0, 1)

    out = scaled_dot_product_attention(
        batched(in_blocks(query, 0, tail)),
        batched(with_neighbours(key)),
        batched(with_neighbours(value)),
        attn_mask=allowed.flatten(0, 1).unsqueeze(1),
        scale=scale,
    )
    # [B * blocks, H, size, Dv] -> [B, H, N, Dv]
    out = out.reshape(batch, -1, heads, size, value.shape[3]).transpose(1, 2)
    return out.flatten(2, 3)[:, :, :length]


def local_attention_weights(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    reach: int,
    scale: float | None,
) -> Tensor:
    """The dense matrix of `local_attention`, [B, H, N, N]; 0 where nothing may be seen."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    position = torch.arange(query.shape[2], device=query.device)
    allowed = (position[:, None] - position).abs() <= reach
    if key_padding_mask is not None:
        allowed = allowed & key_padding_mask[:, None, None, :]
    logits = (query @ key.transpose(-1, -2)).float() * scale
    weights = logits.masked_fill(~allowed, float("-inf")).softmax(-1)
    return weights.masked_fill(~allowed, 0.0).to(query.dtype)
