"""Means of the blocks of a call, by one kernel for queries and one for keys and values.

Shapes: B batch, H heads, X query and Y key blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..problem import Problem
from .arguments import as_bytes, padded
from .pool_kernel import pool_kernel
from .tuning import pooled_at_once


class Means(NamedTuple):
    """Means of the real tokens of each block, and how many these are.

    Attributes:
        query: float32 [B, H, X, D].
        key: float32 [B, H, Y, D].
        value: float32 [B, H, Y, Dv], or None where nobody needs it.
        query_counts: int32 [B, X].
        key_counts: int32 [B, Y].
    """

    query: Tensor
    key: Tensor
    value: Tensor | None
    query_counts: Tensor
    key_counts: Tensor


def pool_blocks(problem: Problem) -> Means:
    """Pools queries and keys, and in mode "full" values."""
    size = problem.options.block_size
    value = problem.value if problem.is_full else None
    query, _, query_counts = _pool(
        problem.query, None, problem.query_padding_mask, problem.blocks_x, size
    )
    key, value_means, key_counts = _pool(
        problem.key, value, problem.key_padding_mask, problem.blocks_y, size
    )
    return Means(query, key, value_means, query_counts, key_counts)


def _pool(
    first: Tensor, second: Tensor | None, mask: Tensor | None, blocks: int, size: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    batch, heads, length, channels = first.shape
    means, second_means = (
        None if x is None else x.new_empty(batch, heads, blocks, x.shape[-1], dtype=torch.float32)
        for x in (first, second)
    )
    assert means is not None
    counts = torch.empty(batch, blocks, dtype=torch.int32, device=first.device)
    second_channels = channels if second is None else second.shape[-1]
    if counts.numel():
        pool_kernel[(batch * heads * blocks,)](
            first,
            second,
            as_bytes(mask),
            means,
            second_means,
            counts,
            heads,
            length,
            blocks,
            *first.stride()[:3],
            *(first if second is None else second).stride()[:3],
            CHANNELS=channels,
            SECOND_CHANNELS=second_channels,
            PADDED_CHANNELS=padded(channels),
            PADDED_SECOND_CHANNELS=padded(second_channels),
            BLOCK_SIZE=size,
            TOKENS_PER_STEP=pooled_at_once(size, max(channels, second_channels)),
            HAS_SECOND=second is not None,
            HAS_MASK=mask is not None,
        )
    return means, second_means, counts
