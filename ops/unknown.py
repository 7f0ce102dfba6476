"""Not-a-number in, not-a-number out, where an implementation would pass it over.

In mode "sparse" a row of blocks that chose nothing gives 0. One whose scores are no numbers chooses
nothing either, and must not pass for it: a run that diverged would look like one that didn't. And a
GPU's greatest of some numbers leaves out what is none.
Shapes: B batch, H heads, X query blocks, Y key blocks.
"""

from __future__ import annotations

from torch import Tensor

from .blocks import count_tokens, pool
from .problem import Problem


def value_means(problem: Problem) -> Tensor:
    """Means of the real values of each block, [B, H, Y, Dv]."""
    value, mask, size = problem.value, problem.key_padding_mask, problem.options.block_size
    counts = count_tokens(mask, len(value), value.shape[-2], size, value.device)
    return pool(value, mask, counts, size)


def in_any(means: Tensor) -> Tensor:
    """Heads with a nan in their means [B, H, Y, D]: bool [B, H, 1]."""
    return means.isnan().flatten(2).any(-1)[..., None]


def mark_unknown(problem: Problem, rows: Tensor, *results: Tensor) -> None:
    """Writes nan to the queries of ``rows`` that are served.

    Args:
        problem: the call.
        rows: query blocks that see a nan, bool [B, H, X].
        *results: [B, H, Nq] or [B, H, Nq, Dv] each.
    """
    tokens = rows.repeat_interleave(problem.options.block_size, -1)
    tokens = tokens[..., : problem.query.shape[-2]]
    if problem.query_padding_mask is not None:
        tokens = tokens & problem.query_padding_mask[:, None]
    for result in results:
        result.masked_fill_(tokens if result.dim() == 3 else tokens[..., None], float("nan"))


def spread_unknown(lse: Tensor, *gradients: Tensor) -> None:
    """Writes nan to gradients [B, H, ...] of a head that has it in its log-sum-exp [B, H, Nq]."""
    heads = lse.isnan().any(-1)[..., None, None]
    for gradient in gradients:
        gradient.masked_fill_(heads, float("nan"))
