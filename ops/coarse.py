"""The coarse scale: attention between blocks, by the means of their tokens.

Shapes: B batch, H heads, X query blocks, Y key blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor


def coarse_scores(query_means: Tensor, key_means: Tensor, scale: float) -> Tensor:
    """ŝ_xy = scale · q̂_x · k̂_y: [B, H, X, D] and [B, H, Y, D] to [B, H, X, Y]."""
    return torch.matmul(query_means * scale, key_means.transpose(-1, -2))


def coarse_attention(scores: Tensor, key_counts: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """How a query block attends to the key blocks that it did not choose.

    Args:
        scores: coarse scores ŝ, [B, H, X, Y].
        key_counts: real tokens per key block c, [B, Y]: a mean stands for so many keys.
        chosen: bool [B, H, X, Y].

    Returns:
        Probabilities c_y e^(ŝ_xy - lse_x), [B, H, X, Y], and lse, [B, H, X]; 0 and -inf for a
        block that has nothing left to attend to.
    """
    scores = scores + key_counts.to(scores.dtype).log()[:, None, None, :]
    return softmax_and_lse(scores.masked_fill_(chosen, float("-inf")))


def coarse_backward(
    probabilities: Tensor,
    pulled: Tensor,
    pulled_delta: Tensor,
    query_means: Tensor,
    key_means: Tensor,
    value_means: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the query, key and value means.

    All queries of a block see the same coarse scores, so their gradients meet in one sum per
    block, each weighted by w_i = e^(coarse lse_x - lse_i) <= 1.

    Args:
        probabilities: as `coarse_attention` gives them, [B, H, X, Y].
        pulled: the sum of w_i dO_i over the queries of a block, [B, H, X, Dv].
        pulled_delta: the sum of w_i δ_i, [B, H, X, 1].
        query_means: [B, H, X, D].
        key_means: [B, H, Y, D].
        value_means: [B, H, Y, Dv].
        scale: factor of the scores.

    Returns:
        [B, H, X, D], [B, H, Y, D] and [B, H, Y, Dv].
    """
    grad_value_means = torch.matmul(probabilities.transpose(-1, -2), pulled)
    grad_scores = torch.matmul(pulled, value_means.transpose(-1, -2)).sub_(pulled_delta)
    grad_scores.mul_(probabilities).mul_(scale)
    return (
        torch.matmul(grad_scores, key_means),
        torch.matmul(grad_scores.transpose(-1, -2), query_means),
        grad_value_means,
    )


def softmax_and_lse(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax and log-sum-exp over the last axis.

    Args:
        scores: [..., n], -inf where an entry takes no part.

    Returns:
        Probabilities [..., n] and log-sum-exp [...]; 0 and -inf, never nan, for a row of -inf.
    """
    if scores.shape[-1] == 0:
        return scores, scores.new_full(scores.shape[:-1], float("-inf"))
    shift = scores.detach().amax(-1, keepdim=True)
    shift = shift.masked_fill(shift == float("-inf"), 0)
    exponentials = torch.exp(scores - shift)
    sums = exponentials.sum(-1, keepdim=True)
    empty = sums == 0
    safe = sums.masked_fill(empty, 1)
    lse = (safe.log() + shift).masked_fill(empty, float("-inf"))
    return exponentials / safe, lse.squeeze(-1)
