"""What a state adds to the tokens behind it, and what tokens leave, by powers of the decays.

Shapes: B batch, L tokens, D channels, N averages.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .powers import series, sums
from .problem import Problem, channels_first


def outputs(problem: Problem) -> Tensor:
    """What the state adds to the outputs, [B, D, L]: Σ_n gamma q^(t+1) state."""
    assert problem.state is not None
    weight = problem.state * problem.gamma * problem.q
    return series(weight, problem.q, problem.x.shape[1])


def state_after(problem: Problem) -> Tensor:
    """The state after the last token, [B, D, N]."""
    left, _ = sums(channels_first(problem.tokens().flip(1)), problem.q)
    after = problem.p * left
    if problem.state is not None:
        after = after + _decay(problem)[0] * problem.state
    return after


class Gradients(NamedTuple):
    """What comes by states; None where nothing does."""

    x: Tensor | None  # [B, L, D]
    p: Tensor | None  # [D, N]
    q: Tensor
    gamma: Tensor | None  # [D, N]
    state: Tensor | None  # [B, D, N]


def gradients(problem: Problem, grad_out: Tensor, grad_after: Tensor | None) -> Gradients:
    """Gradients of what `outputs` and `state_after` give.

    Args:
        problem: the call.
        grad_out: [B, L, D].
        grad_after: of the state after the last token, [B, D, N] or None.
    """
    p, q, gamma = problem.p, problem.q, problem.gamma
    grad_q = torch.zeros_like(q)
    grad_x = grad_p = grad_gamma = grad_state = None
    if problem.state is not None:
        value, slope = sums(channels_first(grad_out.to(problem.dtype)), q)
        grad_state = gamma * q * value
        grad_gamma = (problem.state * q * value).sum(0)
        grad_q += gamma * (problem.state * (q * slope + value)).sum(0)
    if grad_after is not None:
        value, slope = sums(channels_first(problem.tokens().flip(1)), q)
        grad_x = series(p * grad_after, q, problem.x.shape[1]).flip(-1).transpose(1, 2)
        grad_p = (grad_after * value).sum(0)
        grad_q += p * (grad_after * slope).sum(0)
        if problem.state is not None:
            decay, by_q = _decay(problem)
            assert grad_state is not None
            grad_state = grad_state + decay * grad_after
            grad_q += by_q * (grad_after * problem.state).sum(0)
    return Gradients(grad_x, grad_p, grad_q, grad_gamma, grad_state)


def _decay(problem: Problem) -> tuple[Tensor, Tensor]:
    """What all tokens together leave of a state, q^L, and its derivative by q."""
    length = problem.x.shape[1]
    decay = problem.q.double() ** (length - 1)
    return (decay * problem.q).to(problem.dtype), (length * decay).to(problem.dtype)
