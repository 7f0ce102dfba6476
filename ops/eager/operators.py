"""MRA attention in plain PyTorch, as operators with gradients.

Operators of their own, because the work is laid out by looking at the chosen blocks.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..kept import Kept, empty_kept
from ..operator_pair import OperatorPair
from ..plan import is_short
from ..problem import Problem, empty_gradients, empty_output
from ..real_tokens import move, move_back, moved, passes, real_first
from ..unknown import in_any, mark_unknown, spread_unknown, value_means
from . import coarse, fine, salient, whole_rows
from .as_blocks import Sink, as_blocks, as_rows
from .part import Part, cut
from .terms import Gradients, Whole


class _Results(NamedTuple):
    """What a call gave, and the gradients of that.

    Attributes:
        out: [B, H, Nq, Dv].
        lse: [B, H, Nq].
        grad_out: [B, H, Nq, Dv].
        grad_lse: [B, H, Nq] or None.
    """

    out: Tensor
    lse: Tensor
    grad_out: Tensor
    grad_lse: Tensor | None

    def at(self, where: Any) -> _Results:
        """What lies at an index of batch row, head and query."""
        return _Results(
            self.out[where],
            self.lse[where],
            self.grad_out[where],
            None if self.grad_lse is None else self.grad_lse[where],
        )


class _Choice(NamedTuple):
    """What is exact.

    Attributes:
        chosen: bool [B, H, X, Y]; None for queries at padding, whose choice is not kept.
        salient: int64 [B, H, g].
    """

    chosen: Tensor | None
    salient: Tensor

    @classmethod
    def of(cls, problem: Problem, kept: Kept) -> _Choice:
        """The choices of a call."""
        blocks = (problem.blocks_x, problem.blocks_y)
        return cls(torch.unflatten(kept.chosen[..., :-1], -1, blocks), kept.salient)

    def at(self, where: Any) -> _Choice:
        """That of a part."""
        return _Choice(None if self.chosen is None else self.chosen[where], self.salient[where])


def _terms(problem: Problem) -> tuple[ModuleType, ...]:
    """In the order in which they attend; gradients come the other way round."""
    terms: tuple[ModuleType, ...] = (fine,)
    if problem.options.salient_keys and problem.query.numel() and problem.key.numel():
        terms += (salient,)
    return (*terms, coarse) if problem.is_full else terms


def _forward(problem: Problem) -> tuple[Tensor, Tensor, Kept]:
    orders = real_first(problem, look=True)
    problem = moved(problem, orders)
    kept = empty_kept(problem.query, problem.key, problem.value, asdict(problem.options))
    whole, others = _exact_rows(problem)
    if whole is None:
        out, lse = _approximate(problem, kept)
    else:
        out, lse = empty_output(problem.query, problem.value)
        for one in kept:
            one.zero_()
        out[whole], lse[whole] = whole_rows.attend(problem.rows(whole))
        if len(others):
            own = Kept(*(one[others] for one in kept))
            out[others], lse[others] = _approximate(problem.rows(others), own)
            for one, part in zip(kept, own, strict=True):
                one[others] = part
    return move_back(out, orders.query), move_back(lse, orders.query), kept


def _exact_rows(problem: Problem) -> tuple[Tensor | None, Tensor]:
    """Sequences that are exact as a whole, and all others; None if there are none of the first."""
    short = is_short(problem.key_padding_mask, problem.key, problem.options).flatten()
    whole, others = short.nonzero()[:, 0], (~short).nonzero()[:, 0]
    is_empty = not problem.query.numel() or not problem.key.numel()
    asked = problem.options.exact_up_to and not is_empty
    return whole if asked and len(whole) else None, others


def _approximate(problem: Problem, kept: Kept) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of a call; fills in what it chose."""
    out, lse = empty_output(problem.query, problem.value)
    kept.chosen[..., -1] = False
    choice = _Choice.of(problem, kept)
    first, *others = passes(problem)
    _attend(first, out, lse, choice)
    for one in filter(None, map(_tail, others)):
        mask, start = one.query_padding_mask, problem.query.shape[-2] - one.query.shape[-2]
        assert mask is not None
        more_out, more_lse = empty_output(one.query, one.value)
        _attend(one, more_out, more_lse, _Choice(None, kept.salient))
        served = mask[:, None, :]
        out[:, :, start:] = torch.where(served[..., None], more_out, out[:, :, start:])
        lse[:, :, start:] = torch.where(served, more_lse, lse[:, :, start:])
    return out, lse


def _tail(problem: Problem) -> Problem | None:
    """The call from the first block with a real query on, or None if no query is real."""
    mask = problem.query_padding_mask
    assert mask is not None
    real = mask.any(0).nonzero()
    if not len(real):
        return None
    size = problem.options.block_size
    start = int(real[0]) // size * size
    return replace(problem, query=problem.query[:, :, start:], query_padding_mask=mask[:, start:])


def _attend(problem: Problem, out: Tensor, lse: Tensor, choice: _Choice) -> None:
    """Fills output [B, H, Nq, Dv] and log-sum-exp [B, H, Nq] of a call.

    What is exact is found and filled in, but for queries at padding: they are given salient keys.
    """
    rows = torch.zeros(*out.shape[:2], problem.blocks_x, dtype=torch.bool, device=out.device)
    for where in cut(problem):
        if choice.chosen is None:
            part = Part.of(problem, where, salient=choice.salient[where])
        else:
            part = Part.of(problem, where)
            choice.chosen[where], choice.salient[where] = part.plan.chosen, part.plan.salient
        _attend_part(problem, part, out[where], lse[where])
        if not problem.is_full:
            rows[where] = part.plan.scores.isnan().any(-1)
    if not problem.is_full:
        mark_unknown(problem, rows | in_any(value_means(problem)), out, lse)


def _attend_part(problem: Problem, part: Part, out: Tensor, lse: Tensor) -> None:
    """Fills ``out`` [B', H', Nq, Dv] and ``lse`` [B', H', Nq] of a part."""
    sink = Sink(out, part)
    blocks = sink.zeroed()
    lses = blocks.new_full(blocks.shape[:-1], float("-inf"))
    for term in _terms(problem):
        lses = term.attend(part, blocks, lses)
    sink.finish()
    tokens = part.plan.means.query_counts.shape[-1] * part.block_size
    lse.copy_(lses.view(*lse.shape[:2], tokens)[..., : lse.shape[-1]])
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
    orders = real_first(problem, look=True)
    problem = moved(problem, orders)
    results = _Results(
        move(out, orders.query),
        move(lse, orders.query),
        move(grad_out, orders.query),
        None if grad_lse is None else move(grad_lse, orders.query),
    )
    whole, others = _exact_rows(problem)
    if whole is None:
        grads = _differentiate_approximation(problem, results, kept)
    else:
        grads = empty_gradients(problem.query, problem.key, problem.value)
        found = [(whole, whole_rows.gradients(problem.rows(whole), *results.at(whole)))]
        if len(others):
            own = problem.rows(others), results.at(others), Kept(*(one[others] for one in kept))
            found.append((others, _differentiate_approximation(*own)))
        for rows, own_grads in found:
            for grad, one in zip(grads, own_grads, strict=True):
                grad[rows] = one
    return (
        move_back(grads[0], orders.query),
        move_back(grads[1], orders.key),
        move_back(grads[2], orders.key),
    )


def _differentiate_approximation(
    problem: Problem, results: _Results, kept: Kept
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    grads = empty_gradients(problem.query, problem.key, problem.value)
    choice = _Choice.of(problem, kept)
    first, *others = passes(problem)
    _differentiate(first, results, choice, grads)
    for one in filter(None, map(_tail, others)):
        start = problem.query.shape[-2] - one.query.shape[-2]
        more = empty_gradients(one.query, one.key, one.value)
        tail = (slice(None), slice(None), slice(start, None))
        _differentiate(one, results.at(tail), _Choice(None, choice.salient), more)
        grads[0][:, :, start:] += more[0]
        grads[1].add_(more[1])
        grads[2].add_(more[2])
    return grads


def _differentiate(
    problem: Problem,
    results: _Results,
    choice: _Choice,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Fills the gradients of a call.

    Args:
        problem: the call.
        results: of the call.
        choice: what it chose.
        grads: of query, key and value.
    """
    for where in cut(problem):
        part = Part.of(problem, where, *choice.at(where))
        whole = _whole(part, results.at(where))
        sinks = Gradients(*(Sink(grad[where], part) for grad in grads))
        for term in reversed(_terms(problem)):
            term.gradients(part, whole, sinks)
        for sink in sinks:
            sink.finish()
    if not problem.is_full:
        lse = results.lse
        if problem.query_padding_mask is not None:
            lse = lse.masked_fill(~problem.query_padding_mask[:, None], 0)
        spread_unknown(lse, *grads)


def _whole(part: Part, results: _Results) -> Whole:
    """The results of a part and their gradients, in blocks; padded queries take no part."""
    out, lse, grad_out, grad_lse = results
    if part.query_padding_mask is not None:
        padding = ~part.query_padding_mask[:, None]
        # Another pass's results stand there.
        out, lse = out.masked_fill(padding[..., None], 0), lse.masked_fill(padding, float("-inf"))
        grad_out = grad_out.masked_fill(padding[..., None], 0)
        grad_lse = None if grad_lse is None else grad_lse.masked_fill(padding, 0)
    lse = lse.masked_fill(lse == float("-inf"), float("inf"))
    out, grad_out = as_blocks(out, part), as_blocks(grad_out, part)
    grad_lse = None if grad_lse is None else as_rows(grad_lse, part, 0.0)
    delta = (grad_out.to(part.dtype) * out).sum(-1)
    if grad_lse is not None:
        delta = delta - grad_lse
    return Whole(out, as_rows(lse, part, float("inf")), grad_out, grad_lse, delta)


operators = OperatorPair("eager", _forward, _backward, Kept, empty_kept)
attend = operators.attend
