"""The coarse scale of a call, a few heads at a time, in (N/b)-sized products.

Shapes: B batch, H heads, X query and Y key blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..choice import choose_blocks
from ..coarse import coarse_attention, coarse_backward
from ..pooled import Pooled, parts, pool_all
from ..problem import Problem, empty_choice, empty_coarse_lse

# Bytes of one [heads, X, Y] matrix of scores: the only thing here that grows with the square of
# the length, so heads are taken a few at a time.
_SCORE_BYTES = 64 << 20


def choose_and_attend(problem: Problem) -> tuple[Tensor, Tensor | None, Tensor]:
    """Chooses the exact blocks, and attends to all others.

    Returns:
        Chosen blocks, bool [B, H, X, Y]; in mode "full" the coarse output [B, H, X, Dv], else
        None; its log-sum-exp [B, H, X], which holds nothing where there is no coarse output. Both
        are float32.
    """
    size = problem.options.block_size
    chosen = empty_choice(problem.query, problem.key, size)
    lse = empty_coarse_lse(problem.query, problem.key, size)
    out = lse.new_empty(*lse.shape, problem.value.shape[-1]) if problem.is_full else None
    for part in problem_parts(problem):
        pooled = _pool(problem, part)
        chosen[part] = choose_blocks(
            pooled.scores, pooled.query_counts, pooled.key_counts, problem.options
        )
        if out is not None:
            probabilities, lse[part] = coarse_attention(
                pooled.scores, pooled.key_counts, chosen[part]
            )
            out[part] = torch.matmul(probabilities, pooled.value)
    return chosen, out, lse


def shares(
    problem: Problem, chosen: Tensor, pulled: Tensor, pulled_delta: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each real token gets of the gradient of its block's mean.

    Args:
        problem: the call.
        chosen: bool [B, H, X, Y].
        pulled: float32 [B, H, X, Dv], see `coarse_backward`.
        pulled_delta: float32 [B, H, X].

    Returns:
        For queries [B, H, X, D], keys [B, H, Y, D] and values [B, H, Y, Dv], float32.
    """
    batch, heads = problem.query.shape[:2]
    channels, value_channels = problem.query.shape[-1], problem.value.shape[-1]
    results = (
        pulled.new_empty(batch, heads, problem.blocks_x, channels),
        pulled.new_empty(batch, heads, problem.blocks_y, channels),
        pulled.new_empty(batch, heads, problem.blocks_y, value_channels),
    )
    for part in problem_parts(problem):
        pooled = _pool(problem, part)
        probabilities, _ = coarse_attention(pooled.scores, pooled.key_counts, chosen[part])
        grads = coarse_backward(
            probabilities,
            pulled[part],
            pulled_delta[part][..., None],
            pooled.query,
            pooled.key,
            pooled.value,
            problem.scale,
        )
        counts = (pooled.query_counts, pooled.key_counts, pooled.key_counts)
        for result, grad, count in zip(results, grads, counts, strict=True):
            result[part] = grad / count.clamp(min=1)[:, None, :, None]
    return results


def problem_parts(problem: Problem) -> Iterator[tuple[slice, slice]]:
    """Batch rows and heads whose coarse scores are formed together."""
    batch, heads = problem.query.shape[:2]
    score_bytes = max(problem.blocks_x * problem.blocks_y * 4, 1)
    return parts(batch, heads, _SCORE_BYTES // score_bytes)


def _pool(problem: Problem, part: tuple[slice, slice]) -> Pooled:
    return pool_all(
        problem.query[part],
        problem.key[part],
        problem.value[part],
        None if problem.key_padding_mask is None else problem.key_padding_mask[part[0]],
        None if problem.query_padding_mask is None else problem.query_padding_mask[part[0]],
        problem.options.block_size,
        problem.scale,
    )
