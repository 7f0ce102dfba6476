"""MRA attention whose scores also know how far apart two tokens are.

BERT's relative positions: a learned table holds one vector E_d per distance d = i - j between a
query and a key, and the score of a token pair is

    s · (q_i·k_j + q_i·E_(i-j))                  "relative_key"
    s · (q_i·k_j + q_i·E_(i-j) + k_j·E_(i-j))    "relative_key_query".

The coarse score of a block pair is the mean of these scores over its pairs of real tokens. For the
first term alone that is the product of the two blocks' means, which MRA always uses. The distance
terms do not factor like that, as every token pair of a block pair has its own distance; their mean
is taken exactly instead. So the one approximation is MRA's own: where a block pair was not chosen,
each of its token pairs scores the mean. Choosing, combining and priors are as everywhere.

The whole matrix of scores is formed: memory is quadratic in length.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.blocks import accumulation_dtype
from mra_plugin.ops.checks import outside_autocast
from mra_plugin.ops.reference import dense_weights

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


def check_known(options: MRAOptions) -> None:
    """Refuses options that this attention does not know.

    Raises:
        ValueError: names them.
    """
    if unknown := options.unknown_to(SERVES):
        raise ValueError(f"MRA with relative positions does not know {' and '.join(unknown)}")


def relative_weights(
    query: Tensor,
    key: Tensor,
    distances: Tensor,
    padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
    *,
    with_key: bool,
) -> Tensor:
    """The matrices that MRA self-attention with relative positions multiplies the values with.

    Args:
        query: [B, H, N, D].
        key: [B, H, N, D].
        distances: the table, [2M - 1, D] with M at least N; row M - 1 + d holds distance d.
        padding_mask: bool [B, N], True = a real token. None: all are real.
        options: block size, budget, mode, priors, selection.
        scale: factor s of the scores.
        with_key: whether keys meet the distances as well.

    Returns:
        [B, H, N, N] in the query's type.

    Raises:
        ValueError: an option is set that this attention does not know.
    """
    check_known(options)
    with outside_autocast(query):
        dtype = accumulation_dtype(query.dtype)
        scaled, keys, table = query.to(dtype) * scale, key.to(dtype), distances.to(dtype)
        scores = torch.matmul(scaled, keys.transpose(-1, -2)) + _by_distance(scaled, table)
        if with_key:
            by_key = _by_distance(keys * scale, table.flip(0))
            scores = scores + by_key.transpose(-1, -2)
        weights, _ = dense_weights(
            query, key, padding_mask, None, options, scale, token_scores=scores
        )
    return weights.to(query.dtype)


def _by_distance(x: Tensor, distances: Tensor) -> Tensor:
    """x_i · E_(i-j) for every i and j: [B, H, N, D] and [2M - 1, D] to [B, H, N, N]."""
    length = x.shape[-2]
    middle = distances.shape[0] // 2
    # Only distances from 1 - N to N - 1 occur.
    products = torch.matmul(x, distances[middle - length + 1 : middle + length].t())
    position = torch.arange(length, device=x.device)
    distance = position[:, None] - position[None, :] + length - 1
    return products.gather(-1, distance.expand(*x.shape[:-1], length))
