"""Means of the blocks of a call, by one kernel for queries and one for keys and values.

Shapes: B batch, H heads, X query and Y key blocks.
"""

from __future__ import annotations

from torch import Tensor

from ..problem import Problem
from .arguments import as_bytes, padded, run
from .kept import MeansWithValues, empty_means
from .kernels.pooling import pool_kernel
from .tuning import tokens_per_step


def pool_blocks(problem: Problem) -> MeansWithValues:
    """Pools queries and keys, and in mode "full" values."""
    means = empty_means(problem.query, problem.key, problem.value, problem.options.block_size)
    query_mask, key_mask = problem.query_padding_mask, problem.key_padding_mask
    value = (problem.value, means.value) if problem.is_full else None
    _pool(problem, (problem.query, means.query), None, query_mask, means.query_counts)
    _pool(problem, (problem.key, means.key), value, key_mask, means.key_counts)
    return means


def _pool(
    problem: Problem,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
    counts: Tensor,
) -> None:
    """Fills the means of one or two tensors under one mask, and counts [B, X]."""
    x, means = first
    other, other_means = first if second is None else second
    size = problem.options.block_size
    batch, heads, length, channels = x.shape
    run(
        pool_kernel,
        batch * heads * counts.shape[1],
        x,
        other,
        as_bytes(mask),
        means,
        other_means,
        counts,
        heads,
        length,
        counts.shape[1],
        *x.stride()[:3],
        *other.stride()[:3],
        CHANNELS=channels,
        SECOND_CHANNELS=other.shape[-1],
        PADDED_CHANNELS=padded(channels),
        PADDED_SECOND_CHANNELS=padded(other.shape[-1]),
        BLOCK_SIZE=size,
        TOKENS_PER_STEP=tokens_per_step(size, padded(max(channels, other.shape[-1]))),
        HAS_SECOND=second is not None,
        HAS_MASK=mask is not None,
    )
