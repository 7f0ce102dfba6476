"""MRA attention in plain PyTorch, as operators with gradients.

Operators of their own, because the work is laid out by looking at the chosen blocks.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from torch import Tensor

from ..operator_pair import OperatorPair
from ..problem import Problem, empty_choice, empty_gradients, empty_output
from . import coarse, fine
from .as_blocks import Sink, as_blocks, as_rows
from .part import Part, cut
from .terms import Gradients, Whole


class Kept(NamedTuple):
    """What a backward needs beside output and log-sum-exp.

    Attributes:
        chosen: the pairs that are exact, bool [B, H, X, Y].
    """

    chosen: Tensor


def _terms(problem: Problem) -> tuple[ModuleType, ...]:
    """In the order in which they attend; gradients come the other way round."""
    return (fine, coarse) if problem.is_full else (fine,)


def _forward(problem: Problem) -> tuple[Tensor, Tensor, Kept]:
    out, lse = empty_output(problem.query, problem.value)
    chosen = empty_choice(problem.query, problem.key, problem.options.block_size)
    for where in cut(problem):
        part = Part.of(problem, where)
        chosen[where] = part.plan.chosen
        _attend(problem, part, out[where], lse[where])
    return out, lse, Kept(chosen)


def _attend(problem: Problem, part: Part, out: Tensor, lse: Tensor) -> None:
    """Fills ``out`` [B', H', Nq, Dv] and ``lse`` [B', H', Nq] of a part."""
    sink = Sink(out, part)
    blocks = sink.zeroed()
    lses = blocks.new_full(blocks.shape[:-1], float("-inf"))
    for term in _terms(problem):
        lses = term.attend(part, blocks, lses)
    sink.finish()
    lse.copy_(lses.view(*lse.shape[:2], -1)[..., : lse.shape[-1]])
    if part.query_padding_mask is not None:
        padding = ~part.query_padding_mask[:, None]
        out.masked_fill_(padding[..., None], 0)
        lse.masked_fill_(padding, float("-inf"))


def _backward(
    problem: Problem,
    out: Tensor,
    lse: Tensor,
    kept: Kept,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    grads = empty_gradients(problem.query, problem.key, problem.value)
    for where in cut(problem):
        part = Part.of(problem, where, kept.chosen[where])
        whole = _whole(
            part,
            out[where],
            lse[where],
            grad_out[where],
            None if grad_lse is None else grad_lse[where],
        )
        sinks = Gradients(*(Sink(grad[where], part) for grad in grads))
        for term in reversed(_terms(problem)):
            term.gradients(part, whole, sinks)
        for sink in sinks:
            sink.finish()
    return grads


def _whole(
    part: Part, out: Tensor, lse: Tensor, grad_out: Tensor, grad_lse: Tensor | None
) -> Whole:
    """The results of a part and their gradients, in blocks; padded queries take no part."""
    if part.query_padding_mask is not None:
        padding = ~part.query_padding_mask[:, None]
        grad_out = grad_out.masked_fill(padding[..., None], 0)
        grad_lse = None if grad_lse is None else grad_lse.masked_fill(padding, 0)
    lse = lse.masked_fill(lse == float("-inf"), float("inf"))
    return Whole(
        as_blocks(out, part),
        as_rows(lse, part, float("inf")),
        as_blocks(grad_out, part),
        None if grad_lse is None else as_rows(grad_lse, part, 0.0),
    )


def _empty_kept(query: Tensor, key: Tensor, _value: Tensor, block_size: int) -> Kept:
    return Kept(empty_choice(query, key, block_size))


operators = OperatorPair("eager", _forward, _backward, Kept, _empty_kept)
attend = operators.attend
