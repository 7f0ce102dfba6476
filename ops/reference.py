"""MRA attention as dense, differentiable PyTorch: the oracle for every faster implementation.

It forms the whole [Nq, Nk] matrix that MRA stands for, so its memory is quadratic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .blocks import accumulation_dtype
from .options import MRAOptions
from .plan import plan_blocks
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
        options: block size, budget, mode, priors, selection.
        scale: factor of the scores.

    Returns:
        Output [B, H, Nq, Dv] in the query's type, and the log-sum-exp of each query's scores
        [B, H, Nq] in the accumulation type (-inf where a query attends to nothing).
    """
    weights, lse = dense_weights(query, key, key_padding_mask, query_padding_mask, options, scale)
    return torch.matmul(weights, value.to(weights.dtype)).to(query.dtype), lse


def dense_weights(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """The matrix [B, H, Nq, Nk] that MRA multiplies the values with, and its log-sum-exp.

    A pair of tokens scores q·k where its pair of blocks was chosen; elsewhere it scores what the
    means of its two blocks score ("full") or nothing ("sparse").
    """
    dtype = accumulation_dtype(query.dtype)
    query, key = query.to(dtype), key.to(dtype)
    query_length, key_length = query.shape[-2], key.shape[-2]
    size = options.block_size
    _, coarse, chosen = plan_blocks(
        query, key, key_padding_mask, query_padding_mask, options, scale
    )

    query_block = torch.arange(query_length, device=query.device)[:, None] // size  # [Nq, 1]
    key_block = torch.arange(key_length, device=query.device)[None, :] // size  # [1, Nk]
    fine = torch.matmul(query * scale, key.transpose(-1, -2))  # [B, H, Nq, Nk]
    is_fine = chosen[:, :, query_block, key_block]
    if options.approx_mode == "full":
        scores = torch.where(is_fine, fine, coarse[:, :, query_block, key_block])
    else:
        scores = fine.masked_fill(~is_fine, float("-inf"))
    if key_padding_mask is not None:
        scores = scores.masked_fill(~key_padding_mask[:, None, None, :], float("-inf"))
    if query_padding_mask is not None:
        scores = scores.masked_fill(~query_padding_mask[:, None, :, None], float("-inf"))
    return softmax_and_lse(scores)
