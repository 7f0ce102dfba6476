"""Which block pairs get exact attention.

Shared by every implementation, so that all of them choose the same blocks.
Shapes: B batch, H heads, X query blocks, Y key blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .options import MRAOptions

# Added in float64 for every prior that a pair falls under: beyond any difference of scores, and
# small enough that the scores keep seven digits behind it.
_PRIOR = 1e9


@torch.no_grad()
def choose_blocks(
    scores: Tensor, query_counts: Tensor, key_counts: Tensor, options: MRAOptions
) -> Tensor:
    """The block pairs that get exact attention (paper, section 4.3).

    Takes exactly the budget, or every real pair if there are fewer; ties go to the lowest pair
    index, so the choice is deterministic.

    Args:
        scores: coarse scores ŝ, [B, H, X, Y].
        query_counts: real tokens per query block, [B, X].
        key_counts: real tokens per key block, [B, Y].
        options: budget, selection and priors.

    Returns:
        bool [B, H, X, Y]; False wherever a block holds no real token.
    """
    real_keys = (key_counts > 0)[:, None, None, :]
    real_queries = query_counts > 0
    blocks_x, blocks_y = scores.shape[-2:]
    if scores.numel() == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    keys = scores.masked_fill(~real_keys, float("-inf"))
    # Rows are compared by how far each pair falls behind its row's best one.
    keys.sub_(keys.amax(-1, keepdim=True))
    keys = _add_priors(keys, options)
    # Rows without a real key are -inf - -inf = nan: no pair of theirs is real either.
    keys.masked_fill_(~(real_keys & real_queries[:, None, :, None]), float("-inf"))
    if options.selection == "per_row":
        return _top(keys[..., None, :], min(options.block_per_row, blocks_y)).squeeze(-2)
    if options.num_blocks is not None:
        return _top(keys, min(options.num_blocks, blocks_x * blocks_y))
    most = min(options.block_per_row * blocks_x, blocks_x * blocks_y)
    budget = (options.block_per_row * real_queries.sum(-1)).clamp(max=most)
    return _top(keys, most, budget[:, None, None])


def _add_priors(keys: Tensor, options: MRAOptions) -> Tensor:
    first = options.initial_prior_first_n_blocks
    diagonal = options.initial_prior_diagonal_n_blocks
    if not first and not diagonal:
        return keys
    rows = torch.arange(keys.shape[-2], device=keys.device)[:, None]
    columns = torch.arange(keys.shape[-1], device=keys.device)[None, :]
    priors = (rows < first).double() + (columns < first).double()
    if diagonal:
        priors = priors + ((rows - columns).abs() <= diagonal // 2).double()
    return keys.double() + _PRIOR * priors


def _top(keys: Tensor, most: int, budget: Tensor | None = None) -> Tensor:
    """Marks the ``budget`` (by default ``most``) greatest finite keys of each matrix.

    ``keys`` is [..., X, Y]; ``budget`` an integer tensor that broadcasts against [..., 1], at most
    ``most``.
    """
    flat = keys.flatten(-2)
    if budget is None:
        budget = keys.new_full((1,), most, dtype=torch.int64)
        threshold = torch.topk(flat, most, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    else:
        ordered = torch.topk(flat, most, dim=-1, sorted=True).values
        last = (budget - 1).clamp(min=0).expand(*flat.shape[:-1], 1)
        threshold = ordered.gather(-1, last)
    threshold = threshold[..., None]
    above = keys > threshold
    # What is -inf is no real pair; nothing equals nan.
    ties = keys == threshold.masked_fill(threshold == float("-inf"), float("nan"))
    spare = budget - above.flatten(-2).sum(-1, keepdim=True)
    return above | _first(ties, spare)


def _first(marks: Tensor, spare: Tensor) -> Tensor:
    """Keeps the first ``spare`` [..., 1] marks of each matrix [..., X, Y].

    Row by row: a GPU sums up many short rows much faster than few long ones.
    """
    in_row = marks.sum(-1, dtype=torch.int32)
    left = spare - (in_row.cumsum(-1, dtype=torch.int32) - in_row)  # [..., X]
    return marks & (marks.cumsum(-1, dtype=torch.int32) <= left[..., None])
