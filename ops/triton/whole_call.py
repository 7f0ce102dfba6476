"""A whole call through the kernels, stage by stage, in both directions.

Between input and output nothing waits for the device, so a CUDA graph can hold all of it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..problem import Problem, empty_gradients, empty_output
from ..real_tokens import move, move_back, moved, passes, real_first
from ..unknown import in_any, mark_unknown, spread_unknown, value_means
from .choosing import choose
from .coarse import attend_coarsely, shares
from .fine_backward import launch_key_value_gradients, launch_query_gradient, launch_sums
from .fine_forward import launch_forward
from .kept import Kept
from .pooling import pool_blocks
from .salient import salient_gradients


def forward(problem: Problem) -> tuple[Tensor, Tensor, Kept]:
    """Output, log-sum-exp, and what the backward needs of the call.

    Whether anything is padded, and where, can't be looked at without waiting for the device: with a
    mask tokens are always moved, and queries at padding always have a pass of their own.
    """
    orders = real_first(problem)
    first, *others = passes(_readable(moved(problem, orders)))
    with _on_device_of(problem.query):
        out, lse, kept = _attend(first)
        for one in others:
            more_out, more_lse, _ = _attend(one, kept.salient)
            assert one.query_padding_mask is not None
            served = one.query_padding_mask[:, None, :]
            out = torch.where(served[..., None], more_out, out)
            lse = torch.where(served, more_lse, lse)
    return move_back(out, orders.query), move_back(lse, orders.query), kept


def _attend(problem: Problem, salient: Tensor | None = None) -> tuple[Tensor, Tensor, Kept]:
    """Output and log-sum-exp of some queries; ``salient`` [B, H, g] if others found them."""
    out, lse = empty_output(problem.query, problem.value)
    kept, coarse_out = _plan(problem, salient)
    values = value_means(problem) if coarse_out is None else kept.value
    rows = kept.query.isnan().any(-1) | in_any(kept.key) | in_any(values)
    if coarse_out is not None:
        # Whatever it is added to, with a weight that it has, is no number either.
        coarse_out.masked_fill_(rows[..., None], float("nan"))
        kept.coarse_lse.masked_fill_(rows, 0.0)
    launch_forward(problem, kept.chosen, kept.salient, coarse_out, kept.coarse_lse, out, lse)
    mark_unknown(problem, rows, *((out, lse) if coarse_out is None else (lse,)))
    return out, lse, kept


def _plan(problem: Problem, salient: Tensor | None) -> tuple[Kept, Tensor | None]:
    """Means, choice and coarse scale; of the latter also the output in mode "full"."""
    means = pool_blocks(problem, salient)
    chosen = choose(problem, means)
    coarse_out, coarse_lse = attend_coarsely(problem, means, chosen)
    return Kept(chosen, coarse_lse, *means), coarse_out


def backward(
    problem: Problem,
    out: Tensor,
    lse: Tensor,
    kept: Kept,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    orders = real_first(problem)
    first, *others = passes(_readable(moved(problem, orders)))
    out, lse, grad_out = (move(x, orders.query) for x in (out, lse, grad_out))
    grad_lse = None if grad_lse is None else move(grad_lse, orders.query)
    if not lse.numel():
        grads = empty_gradients(problem.query, problem.key, problem.value)
        for grad in grads:
            grad.zero_()
        return grads
    with _on_device_of(problem.query):
        grads = _differentiate(first, out, lse, kept, grad_out, grad_lse)
        for one in others:
            # What it kept is found again: another pass's results would have to be kept as well.
            own, _ = _plan(one, kept.salient)
            more = _differentiate(one, out, lse, own, grad_out, grad_lse)
            for grad, further in zip(grads, more, strict=True):
                grad.add_(further)
    return (
        move_back(grads[0], orders.query),
        move_back(grads[1], orders.key),
        move_back(grads[2], orders.key),
    )


def _differentiate(
    problem: Problem,
    out: Tensor,
    lse: Tensor,
    kept: Kept,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    if problem.query_padding_mask is not None:
        # Another pass's results stand at other queries; those without output take no part.
        lse = lse.masked_fill(~problem.query_padding_mask[:, None], float("-inf"))
    if grad_out.stride(-1) != 1:
        grad_out = grad_out.contiguous()
    grads = empty_gradients(problem.query, problem.key, problem.value)
    chosen, coarse_lse = kept.chosen, kept.coarse_lse
    delta, *pulled = launch_sums(problem, coarse_lse, out, lse, grad_out, grad_lse)
    share: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
    if problem.is_full:
        share = found = shares(problem, kept.means, chosen, coarse_lse, *pulled)
        spread_unknown(lse, *found)
    known = (problem, chosen, kept.salient, lse, delta, grad_out)
    launch_query_gradient(*known, share[0], grads[0])
    launch_key_value_gradients(*known, share[1:], salient_gradients(*known), grads[1:])
    if not problem.is_full:
        spread_unknown(lse, *grads)
    return grads


def _readable(problem: Problem) -> Problem:
    """The same in a layout that kernels read: any strides but that of channels, dense masks."""
    query, key, value = (
        x if x.stride(-1) == 1 else x.contiguous()
        for x in (problem.query, problem.key, problem.value)
    )
    key_mask, query_mask = (
        None if mask is None else mask.contiguous()
        for mask in (problem.key_padding_mask, problem.query_padding_mask)
    )
    return Problem(query, key, value, key_mask, query_mask, problem.options, problem.scale)


def _on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
