"""What the terms of one softmax have in common, and how they meet.

A term is a file with two functions:

- ``attend(part, out, lse)`` adds its attention to what other terms gave, in place, and returns the
  log-sum-exp of all of them;
- ``gradients(part, whole, grads)`` adds its share to the gradients, given the whole's output and
  log-sum-exp.

Shapes: G heads of the part, b tokens per block, X query blocks, W channels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .as_blocks import Sink


class Whole(NamedTuple):
    """The whole attention, which each term is a part of, and the gradients of its results.

    Attributes:
        out: [G·X, b, W].
        lse: [G·X, b], +inf for a query without output, so that it weighs every key with 0.
        grad_out: [G·X, b, W].
        grad_lse: [G·X, b] or None.
        delta: the sum of grad_out · out over the channels, less grad_lse, [G·X, b].
    """

    out: Tensor
    lse: Tensor
    grad_out: Tensor
    grad_lse: Tensor | None
    delta: Tensor


class Gradients(NamedTuple):
    """Where the gradients are collected."""

    query: Sink
    key: Sink
    value: Sink


def merge(out: Tensor, lse: Tensor, more_out: Tensor, more_lse: Tensor) -> Tensor:
    """Adds attention over more keys to ``out``, in place.

    Args:
        out: [G·X, b, W].
        lse: its log-sum-exp, [G·X, b]; -inf for a query that has seen no key yet.
        more_out: [G·X, b, W], or [G·X, 1, W] where all queries of a block have the same.
        more_lse: [G·X, b] or [G·X, 1].

    Returns:
        The log-sum-exp of both, [G·X, b].
    """
    whole = lse.logaddexp(more_lse)
    shift = whole.masked_fill(whole == float("-inf"), 0)
    out.mul_((lse - shift).exp_()[..., None])
    out.addcmul_(more_out, (more_lse - shift).exp_()[..., None])
    return whole
