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
from mra_plugin.ops.plan import Means, plan_blocks
from mra_plugin.ops.softmax import softmax_and_lse

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
    with torch.autocast(query.device.type, enabled=False):
        dtype = accumulation_dtype(query.dtype)
        weights = _weights(
            query.to(dtype) * scale,
            key.to(dtype),
            distances.to(dtype),
            padding_mask,
            options,
            scale if with_key else None,
        )
    return weights.to(query.dtype)


def _weights(
    query: Tensor,
    key: Tensor,
    distances: Tensor,
    padding_mask: Tensor | None,
    options: MRAOptions,
    key_scale: float | None,
) -> Tensor:
    """For queries that are scaled already; keys meet the distances if they have a scale."""
    length, size = query.shape[-2], options.block_size

    fine = torch.matmul(query, key.transpose(-1, -2)) + _by_distance(query, distances)
    if key_scale is not None:
        fine = fine + _by_distance(key * key_scale, distances.flip(0)).transpose(-1, -2)
    # [B, H, N, N]

    def score(means: Means) -> Tensor:
        return _pair_means(fine, padding_mask, means.key_counts, size)

    _, coarse, chosen = plan_blocks(
        query, key, padding_mask, padding_mask, options, 1.0, score=score
    )

    block = torch.arange(length, device=query.device) // size
    rows, columns = block[:, None], block[None, :]
    is_fine = chosen[:, :, rows, columns]
    if options.approx_mode == "full":
        scores = torch.where(is_fine, fine, coarse[:, :, rows, columns])
    else:
        scores = fine.masked_fill(~is_fine, float("-inf"))
    if padding_mask is not None:
        real = padding_mask[:, None, :, None] & padding_mask[:, None, None, :]
        scores = scores.masked_fill(~real, float("-inf"))
    return softmax_and_lse(scores)[0]


def _by_distance(x: Tensor, distances: Tensor) -> Tensor:
    """x_i · E_(i-j) for every i and j: [B, H, N, D] and [2M - 1, D] to [B, H, N, N]."""
    length = x.shape[-2]
    middle = distances.shape[0] // 2
    # Only distances from 1 - N to N - 1 occur.
    products = torch.matmul(x, distances[middle - length + 1 : middle + length].t())
    position = torch.arange(length, device=x.device)
    distance = position[:, None] - position[None, :] + length - 1
    return products.gather(-1, distance.expand(*x.shape[:-1], length))


def _pair_means(fine: Tensor, padding_mask: Tensor | None, counts: Tensor, size: int) -> Tensor:
    """Mean score of every block pair's real token pairs, 0 where there are none.

    [B, H, N, N] to [B, H, X, X].
    """
    if padding_mask is not None:
        real = padding_mask[:, None, :, None] & padding_mask[:, None, None, :]
        fine = fine.masked_fill(~real, 0)
    blocks = counts.shape[-1]
    tail = blocks * size - fine.shape[-1]
    if tail:
        fine = torch.nn.functional.pad(fine, (0, tail, 0, tail))
    columns = torch.unflatten(fine, -1, (blocks, size)).sum(-1)
    sums = torch.unflatten(columns, -2, (blocks, size)).sum(-2)
    pairs = counts[:, None, :, None] * counts[:, None, None, :]
    return sums / pairs.clamp(min=1)
