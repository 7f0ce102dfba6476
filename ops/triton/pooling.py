"""Means of blocks and cells of a call, by one kernel for queries and one for keys and values.

Shapes: B batch, H heads, X query blocks, Z cells of keys.
"""

from __future__ import annotations

from dataclasses import asdict

import triton
from torch import Tensor

from ..launching import as_bytes, run
from ..plan import averaged_keys, find_salient
from ..problem import Problem
from .arguments import padded
from .kept import MeansWithValues, empty_means
from .kernels.pooling import pool_cells_kernel, pool_kernel
from .tuning import tokens_per_step

# Cells of fewer tokens share a program, which reads so many tokens, or fewer of many channels.
_SMALL = 16
_TOKENS = 128


def pool_blocks(problem: Problem, salient: Tensor | None = None) -> MeansWithValues:
    """Pools queries by block and keys by cell, and in mode "full" values.

    Args:
        problem: the call.
        salient: keys that were found before, int64 [B, H, g]; None = the queries' means say them.
    """
    options, mask = problem.options, problem.key_padding_mask
    means = empty_means(problem.query, problem.key, problem.value, asdict(options))
    queries, keys = (problem.query, means.query), (problem.key, means.key)
    values = (problem.value, means.value) if problem.is_full else None
    _pool(queries, None, problem.query_padding_mask, means.query_counts, options.block_size)
    if options.salient_keys:
        if salient is None:
            known = means.query, means.query_counts, problem.key, mask
            salient = find_salient(*known, options, problem.scale)
        means = means._replace(salient=salient)
        mask = averaged_keys(mask, salient, problem.key)
    _pool(keys, values, mask, means.key_counts, options.cell_size)
    return means


def _pool(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
    counts: Tensor,
    size: int,
) -> None:
    """Fills the means of one or two tensors under one mask, and counts.

    ``mask`` is [B, N] and ``counts`` [B, X], or [B, H, N] and [B, H, X].
    """
    x, means = first
    other, other_means = first if second is None else second
    batch, heads, length, channels = x.shape
    widest = padded(max(channels, other.shape[-1]))
    if size < _SMALL:
        kernel, step = pool_cells_kernel, tokens_per_step(_TOKENS, widest)
        programs = triton.cdiv(length, step)
    else:
        kernel, step = pool_kernel, tokens_per_step(size, widest)
        programs = counts.shape[-1]
    run(
        kernel,
        batch * heads * programs,
        x,
        other,
        as_bytes(mask),
        means,
        other_means,
        counts,
        heads,
        heads if counts.dim() == 2 else 1,
        length,
        counts.shape[-1],
        *x.stride()[:3],
        *other.stride()[:3],
        CHANNELS=channels,
        SECOND_CHANNELS=other.shape[-1],
        PADDED_CHANNELS=padded(channels),
        PADDED_SECOND_CHANNELS=padded(other.shape[-1]),
        BLOCK_SIZE=size,
        TOKENS_PER_STEP=step,
        HAS_SECOND=second is not None,
        HAS_MASK=mask is not None,
    )
