"""Some batch rows and heads of a call, pooled into blocks, and how a call is cut into such parts.

Shapes: B batch, H heads, X query blocks, Y key blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from .blocks import count_tokens, pool
from .coarse import coarse_scores


class Pooled(NamedTuple):
    """Counts of real tokens, means, and the coarse scores ŝ between them.

    Attributes:
        query_counts: [B, X].
        key_counts: [B, Y].
        query: [B, H, X, D].
        key: [B, H, Y, D].
        value: [B, H, Y, Dv].
        scores: [B, H, X, Y].
    """

    query_counts: Tensor
    key_counts: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    scores: Tensor


def pool_all(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    block_size: int,
    scale: float,
) -> Pooled:
    """Pools [B, H, N, D] tensors under bool masks [B, N]."""
    batch, device = query.shape[0], query.device
    query_counts = count_tokens(query_padding_mask, batch, query.shape[-2], block_size, device)
    key_counts = count_tokens(key_padding_mask, batch, key.shape[-2], block_size, device)
    query_means = pool(query, query_padding_mask, query_counts, block_size)
    key_means = pool(key, key_padding_mask, key_counts, block_size)
    return Pooled(
        query_counts,
        key_counts,
        query_means,
        key_means,
        pool(value, key_padding_mask, key_counts, block_size),
        coarse_scores(query_means, key_means, scale),
    )


def parts(batch: int, heads: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Batch rows and heads to take together: whole rows, or heads of a single row.

    Args:
        batch: B.
        heads: H.
        at_once: heads, of whatever rows, that a part may hold; at least 1 is taken.
    """
    at_once = max(at_once, 1)
    if at_once >= heads:
        step = at_once // max(heads, 1)
        for row in range(0, batch, step):
            yield slice(row, row + step), slice(None)
        return
    for row in range(batch):
        for head in range(0, heads, at_once):
            yield slice(row, row + 1), slice(head, head + at_once)
