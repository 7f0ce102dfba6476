"""Cutting tokens into blocks: how many, how many real tokens in each, and their means.

Shapes: B batch, H heads, N tokens, b tokens per block, Y blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def block_count(length: int, block_size: int) -> int:
    """Blocks that ``length`` tokens fill; the last one may be short."""
    return (length + block_size - 1) // block_size


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def count_tokens(
    padding_mask: Tensor | None, batch: int, length: int, block_size: int, device: torch.device
) -> Tensor:
    """Tokens of each block that count: int64 [..., Y] from a bool mask [..., N].

    Without a mask all count, and the result is [B, Y].
    """
    blocks = block_count(length, block_size)
    if padding_mask is None:
        starts = torch.arange(0, blocks * block_size, block_size, device=device)
        return (length - starts).clamp(max=block_size).expand(batch, blocks)
    padded = fill_up(padding_mask, -1, blocks * block_size)
    return torch.unflatten(padded, -1, (blocks, block_size)).sum(-1)


def pool(x: Tensor, padding_mask: Tensor | None, counts: Tensor, block_size: int) -> Tensor:
    """Mean of each block's tokens that count, 0 where there are none.

    Args:
        x: [B, H, N, D].
        padding_mask: bool [B, N] or [B, H, N], True = a token that counts; None = all do.
        counts: how many do in each block, [B, Y] or [B, 1 or H, Y].
        block_size: b.

    Returns:
        [B, H, Y, D] in the accumulation type of x (float32, or float64 for float64).
    """
    dtype = accumulation_dtype(x.dtype)
    blocks = counts.shape[-1]
    if padding_mask is not None:
        x = x.masked_fill(~by_head(padding_mask)[..., None], 0)
    x = fill_up(x, -2, blocks * block_size)
    sums = torch.unflatten(x, -2, (blocks, block_size)).sum(-2, dtype=dtype)
    return sums / by_head(counts).clamp(min=1)[..., None]


def fill_up(x: Tensor, dim: int, length: int) -> Tensor:
    """Puts zeros behind x, up to ``length`` along one of its last dimensions (a negative ``dim``).

    A length that a tracer left open is never asked whether it is there already: the program would
    hold for such lengths alone.
    """
    missing = length - x.shape[dim]
    if isinstance(missing, int) and not missing:
        return x
    return torch.nn.functional.pad(x, (*(0, 0) * (-dim - 1), 0, missing))


def by_head(x: Tensor) -> Tensor:
    """[B, N], the same for all heads, as [B, 1, N]; [B, H, N] stays."""
    return x[:, None] if x.dim() == 2 else x
