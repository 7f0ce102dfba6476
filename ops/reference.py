"""MRA attention as dense, differentiable PyTorch: the oracle for every faster implementation.

It forms the whole [Nq, Nk] matrix that MRA stands for, so its memory is quadratic.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .blocks import accumulation_dtype
from .options import MRAOptions
from .plan import Means, plan_blocks, salient_marks
from .problem import Problem
from .real_tokens import move, move_back, moved, passes, real_first
from .softmax import softmax_and_lse

SERVES = frozenset(
    {
        "block_size",
        "block_per_row",
        "num_blocks",
        "approx_mode",
        "initial_prior_first_n_blocks",
        "initial_prior_diagonal_n_blocks",
        "selection",
        "coarse_key_size",
        "salient_keys",
        "block_score",
        "exact_up_to",
    }
)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """MRA attention by way of its dense matrix.

    Args:
        query: [B, H, Nq, D].
        key: [B, H, Nk, D].
        value: [B, H, Nk, Dv].
        key_padding_mask: bool [B, Nk] or None.
        query_padding_mask: bool [B, Nq] or None.
        options: of the call.
        scale: factor of the scores.

    Returns:
        Output [B, H, Nq, Dv] in the query's type, and the log-sum-exp of each query's scores
        [B, H, Nq] in the accumulation type (-inf where a query attends to nothing).
    """
    weights, lse = dense_weights(query, key, key_padding_mask, query_padding_mask, options, scale)
    if key_padding_mask is not None:
        value = value.masked_fill(~key_padding_mask[:, None, :, None], 0)
    return torch.matmul(weights, value.to(weights.dtype)).to(query.dtype), lse


def dense_weights(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
    *,
    token_scores: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The matrix [B, H, Nq, Nk] that MRA multiplies the values with, and its log-sum-exp.

    A pair of tokens scores q·k where its pair of blocks was chosen or the key is salient; elsewhere
    it scores what the means of the query's block and the key's cell score ("full") or nothing
    ("sparse").

    Args:
        query: [B, H, Nq, D].
        key: [B, H, Nk, D].
        key_padding_mask: bool [B, Nk] or None.
        query_padding_mask: bool [B, Nq] or None.
        options: of the call.
        scale: factor of the scores.
        token_scores: [B, H, Nq, Nk], what pairs of tokens score where that is more than q·k; a
            pair of blocks then scores their mean.
    """
    dtype = accumulation_dtype(query.dtype)
    query, key = query.to(dtype), key.to(dtype)
    # Values don't matter here.
    call = Problem(query, key, key, key_padding_mask, query_padding_mask, options, scale)
    orders = real_first(call)
    if token_scores is not None:
        token_scores = move(token_scores, orders.query).transpose(-1, -2)
        token_scores = move(token_scores, orders.key).transpose(-1, -2)
    scores = torch.full((), float("-inf"), dtype=dtype, device=query.device)
    salient = None
    for one in passes(moved(call, orders)):
        own, salient = _scores(one, token_scores, salient)
        served = one.query_padding_mask
        scores = own if served is None else torch.where(served[:, None, :, None], own, scores)
    weights, lse = softmax_and_lse(scores)
    weights = move_back(weights, orders.query)
    weights = move_back(weights.transpose(-1, -2), orders.key).transpose(-1, -2)
    return weights, move_back(lse, orders.query)


def _scores(
    call: Problem, token_scores: Tensor | None, salient: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What each query scores with each key, [B, H, Nq, Nk]; -inf where it does not see it.

    Salient keys, [B, H, g], are those of the real queries: found here if these are the first, and
    returned beside the scores.
    """
    query, key, size = call.query, call.key, call.options.block_size
    key_mask, query_mask = call.key_padding_mask, call.query_padding_mask
    # Whatever stands at padding, nan included.
    if key_mask is not None:
        key = key.masked_fill(~key_mask[:, None, :, None], 0)
    if query_mask is not None:
        query = query.masked_fill(~query_mask[:, None, :, None], 0)
    score = None
    if token_scores is None:
        fine = torch.matmul(query * call.scale, key.transpose(-1, -2))
    else:
        fine = token_scores
        score = partial(_pair_means, token_scores, call)
    _, coarse, _, chosen, salient = plan_blocks(
        query, key, key_mask, query_mask, call.options, call.scale, score=score, salient=salient
    )

    query_block = torch.arange(query.shape[-2], device=query.device)[:, None] // size  # [Nq, 1]
    keys = torch.arange(key.shape[-2], device=query.device)[None, :]  # [1, Nk]
    is_fine = chosen[:, :, query_block, keys // size]
    is_fine = is_fine | salient_marks(salient, key.shape[-2])[..., None, :]
    if call.is_full:
        cell = keys // call.options.cell_size
        scores = torch.where(is_fine, fine, coarse[:, :, query_block, cell])
    else:
        scores = fine.masked_fill(~is_fine, float("-inf"))
        # Nothing is chosen by what is no number: the row must not pass for an empty one.
        unknown = coarse.isnan().any(-1, keepdim=True)
        scores = scores.masked_fill(unknown[:, :, query_block[:, 0]], float("nan"))
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None, :], float("-inf"))
    return scores, salient


def _pair_means(token_scores: Tensor, call: Problem, means: Means) -> Tensor:
    """Mean score of every block pair's real token pairs, 0 where there are none.

    [B, H, Nq, Nk] to [B, H, X, Y].
    """
    size = call.options.block_size
    if call.key_padding_mask is not None:
        token_scores = token_scores.masked_fill(~call.key_padding_mask[:, None, None, :], 0)
    if call.query_padding_mask is not None:
        token_scores = token_scores.masked_fill(~call.query_padding_mask[:, None, :, None], 0)
    tails = (-token_scores.shape[-1] % size, -token_scores.shape[-2] % size)
    filled = torch.nn.functional.pad(token_scores, (0, tails[0], 0, tails[1]))
    columns = torch.unflatten(filled, -1, (call.blocks_y, size)).sum(-1)
    sums = torch.unflatten(columns, -2, (call.blocks_x, size)).sum(-2)
    pairs = means.query_counts[:, None, :, None] * means.key_counts[:, :, None, :]
    return sums / pairs.clamp(min=1)
