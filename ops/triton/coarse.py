"""The coarse scale of a call: attention of query blocks over cells of keys that are not exact.

Shapes: B batch, H heads, X query and Y key blocks, Z cells of keys.
"""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from ..launching import as_bytes, run
from ..problem import Problem, empty_coarse_lse
from .arguments import padded
from .kept import MeansWithValues
from .kernels.coarse import coarse_forward_kernel, coarse_key_value_kernel, coarse_query_kernel
from .tuning import coarse_launch, product_precision, score_precision


def attend_coarsely(
    problem: Problem, means: MeansWithValues, chosen: Tensor
) -> tuple[Tensor | None, Tensor]:
    """How each query block attends to the cells of key blocks that it did not choose.

    Returns:
        Output [B, H, X, Dv] in mode "full", else None, and log-sum-exp [B, H, X], which holds
        nothing where there is no output. Both are float32.
    """
    lse = empty_coarse_lse(problem.query, problem.options.block_size)
    if not problem.is_full:
        return None, lse
    out = lse.new_empty(*lse.shape, problem.value.shape[-1])
    programs, settings = _launch(problem, means, problem.blocks_x)
    run(
        coarse_forward_kernel,
        programs,
        means.query,
        means.key,
        means.value,
        means.key_counts,
        as_bytes(chosen),
        out,
        lse,
        *_sizes(problem, means),
        **settings,
    )
    return out, lse


def shares(
    problem: Problem,
    means: MeansWithValues,
    chosen: Tensor,
    coarse_lse: Tensor,
    pulled: Tensor,
    pulled_delta: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """What each token gets of the gradient of the mean of its block or cell.

    Args:
        problem: the call.
        means: of its blocks and cells.
        chosen: bool [B, H, X, Y].
        coarse_lse: float32 [B, H, X].
        pulled: the sum of w_i dO_i over the queries of a block, each weighted by
            w_i = e^(coarse lse - lse_i), float32 [B, H, X, Dv].
        pulled_delta: the sum of w_i δ_i, float32 [B, H, X].

    Returns:
        For queries [B, H, X, D], keys [B, H, Z, D] and values [B, H, Z, Dv], float32.
    """
    flags = as_bytes(chosen)
    query_share, key_share, value_share = (
        x.new_empty(x.shape) for x in (means.query, means.key, means.value)
    )
    programs, settings = _launch(problem, means, problem.blocks_x)
    run(
        coarse_query_kernel,
        programs,
        means.query,
        means.key,
        means.value,
        means.query_counts,
        means.key_counts,
        flags,
        coarse_lse,
        pulled,
        pulled_delta,
        query_share,
        problem.query.shape[1],
        *_sizes(problem, means),
        **settings,
    )
    programs, settings = _launch(problem, means, means.key.shape[2])
    run(
        coarse_key_value_kernel,
        programs,
        means.query,
        means.key,
        means.value,
        means.key_counts,
        flags,
        coarse_lse,
        pulled,
        pulled_delta,
        key_share,
        value_share,
        *_sizes(problem, means),
        **settings,
    )
    return query_share, key_share, value_share


def _launch(problem: Problem, means: MeansWithValues, blocks: int) -> tuple[int, dict[str, Any]]:
    """Programs for ``blocks`` of every head, and the settings that all kernels share."""
    batch, heads, _, channels = problem.query.shape
    value_channels, dtype = problem.value.shape[-1], problem.query.dtype
    most = max(problem.blocks_x, means.key.shape[2])
    launch = coarse_launch(most, padded(max(channels, value_channels)), dtype)
    settings = {
        "CHANNELS": channels,
        "VALUE_CHANNELS": value_channels,
        "PADDED_CHANNELS": padded(channels),
        "PADDED_VALUE_CHANNELS": padded(value_channels),
        "ROWS": launch.rows,
        "COLUMNS": launch.step,
        "CELLS": problem.options.block_size // problem.options.cell_size,
        "SCORE_PRECISION": score_precision(dtype),
        "PRECISION": product_precision(dtype),
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
    }
    return batch * heads * triton.cdiv(blocks, launch.rows), settings


def _sizes(problem: Problem, means: MeansWithValues) -> tuple[float, int, int, int, int]:
    """The scale, how many query blocks, key blocks and cells, and heads with the same counts."""
    blocks = problem.blocks_x, problem.blocks_y
    return problem.scale, *blocks, means.key.shape[2], means.heads_sharing
