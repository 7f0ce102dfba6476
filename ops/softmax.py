"""Softmax with its log-sum-exp, safe for rows that attend to nothing."""

from __future__ import annotations

import torch
from torch import Tensor


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
