"""Which blocks are exact: pool, score, choose.

Shared by all that works with blocks, so that all of it means the same ones.
Shapes: B batch, H heads, X query blocks, Y key blocks, D channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import count_tokens, pool
from .options import MRAOptions

# Added in float64 for every prior that a pair falls under: beyond any difference of scores, and
# small enough that the scores keep seven digits behind it.
_PRIOR = 1e9


class Means(NamedTuple):
    """Means of the real tokens of each block, and how many these are.

    Attributes:
        query: [B, H, X, D], in the accumulation type.
        key: [B, H, Y, D], likewise.
        query_counts: [B, X].
        key_counts: [B, Y].
    """

    query: Tensor
    key: Tensor
    query_counts: Tensor
    key_counts: Tensor


class Plan(NamedTuple):
    """What a call does with its pairs of blocks.

    Attributes:
        means: of its blocks.
        scores: coarse scores ŝ, [B, H, X, Y].
        chosen: the pairs that are exact, bool [B, H, X, Y].
    """

    means: Means
    scores: Tensor
    chosen: Tensor


def plan_blocks(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
    *,
    score: Callable[[Means], Tensor] | None = None,
    chosen: Tensor | None = None,
) -> Plan:
    """Pools queries and keys, scores the pairs of blocks, and chooses among them.

    Means and scores have gradients, the choice has none.

    Args:
        query: [B, H, Nq, D].
        key: [B, H, Nk, D].
        key_padding_mask: bool [B, Nk], True = a real token; None = all real.
        query_padding_mask: bool [B, Nq], likewise.
        options: block size, budget, selection, priors.
        scale: factor of the scores.
        score: gives the coarse scores [B, H, X, Y] where they are not those of the means.
        chosen: pairs that were chosen before, bool [B, H, X, Y], as in a backward.
    """
    batch, size, device = query.shape[0], options.block_size, query.device
    query_counts = count_tokens(query_padding_mask, batch, query.shape[-2], size, device)
    key_counts = count_tokens(key_padding_mask, batch, key.shape[-2], size, device)
    means = Means(
        pool(query, query_padding_mask, query_counts, size),
        pool(key, key_padding_mask, key_counts, size),
        query_counts,
        key_counts,
    )
    scores = coarse_scores(means, scale) if score is None else score(means)
    if chosen is None:
        chosen = choose_blocks(scores, visible_pairs(query_counts, key_counts), options)
    return Plan(means, scores, chosen)


def coarse_scores(means: Means, scale: float) -> Tensor:
    """ŝ_xy = scale · q̂_x · k̂_y, [B, H, X, Y]."""
    return torch.matmul(means.query * scale, means.key.transpose(-1, -2))


def visible_pairs(query_counts: Tensor, key_counts: Tensor) -> Tensor:
    """Which blocks may see each other at all: those that hold a real token.

    Args:
        query_counts: real tokens per query block, [B, X].
        key_counts: real tokens per key block, [B, Y].

    Returns:
        bool [B, 1, X, Y].
    """
    return ((query_counts > 0)[:, :, None] & (key_counts > 0)[:, None, :])[:, None]


@torch.no_grad()
def choose_blocks(scores: Tensor, visible: Tensor, options: MRAOptions) -> Tensor:
    """The block pairs that get exact attention (paper, section 4.3).

    Takes exactly the budget, or every visible pair if there are fewer; ties go to the lowest pair
    index, so the choice is deterministic.

    Args:
        scores: coarse scores ŝ, [B, H, X, Y].
        visible: pairs that there are to choose from, bool [B, 1, X, Y].
        options: budget, selection and priors.

    Returns:
        bool [B, H, X, Y].
    """
    blocks_x, blocks_y = scores.shape[-2:]
    if scores.numel() == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    keys = scores.masked_fill(~visible, float("-inf"))
    # Rows are compared by how far each pair falls behind its row's best one.
    keys.sub_(keys.amax(-1, keepdim=True))
    keys = _add_priors(keys, options)
    # Rows that see nothing are -inf - -inf = nan now; nor is anything chosen by a score that is no
    # number, or it would take the budget of others.
    keys.masked_fill_(~visible | keys.isnan(), float("-inf"))
    if options.selection == "per_row":
        return _top(keys[..., None, :], min(options.block_per_row, blocks_y)).squeeze(-2)
    if options.num_blocks is not None:
        return _top(keys, min(options.num_blocks, blocks_x * blocks_y))
    most = min(options.block_per_row * blocks_x, blocks_x * blocks_y)
    rows = visible.any(-1).sum(-1)  # [B, 1]
    return _top(keys, most, (options.block_per_row * rows).clamp(max=most)[..., None])


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
