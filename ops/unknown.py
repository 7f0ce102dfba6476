"""Not-a-number in, not-a-number out, where nothing would be chosen by it.

In mode "sparse" a row of blocks that chose nothing gives 0. One whose scores are no numbers chooses
nothing either, and must not pass for it: a run that diverged would look like one that didn't.
Shapes: B batch, H heads, X query blocks, b tokens per block.
"""

from __future__ import annotations

from torch import Tensor

from .blocks import count_tokens, pool
from .problem import Problem


def mark_unknown(problem: Problem, rows: Tensor, out: Tensor, lse: Tensor) -> None:
    """Writes nan to the queries of ``rows`` that are served.

    Args:
        problem: the call.
        rows: query blocks without a score that is a number, bool [B, H, X].
        out: [B, H, Nq, Dv].
        lse: [B, H, Nq].
    """
    size = problem.options.block_size
    counts = count_tokens(
        problem.key_padding_mask, len(problem.value), problem.value.shape[-2], size, rows.device
    )
    values = pool(problem.value, problem.key_padding_mask, counts, size)
    rows = rows | values.isnan().flatten(2).any(-1)[..., None]
    tokens = rows.repeat_interleave(size, -1)[..., : lse.shape[-1]]
    if problem.query_padding_mask is not None:
        tokens = tokens & problem.query_padding_mask[:, None]
    out.masked_fill_(tokens[..., None], float("nan"))
    lse.masked_fill_(tokens, float("nan"))


def spread_unknown(lse: Tensor, grads: tuple[Tensor, ...]) -> None:
    """Writes nan to all gradients of a head that has it in its log-sum-exp [B, H, Nq]."""
    heads = lse.isnan().any(-1)[..., None, None]
    for grad in grads:
        grad.masked_fill_(heads, float("nan"))
