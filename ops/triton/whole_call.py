"""A whole call through the kernels, stage by stage, in both directions.

Between input and output nothing waits for the device, so a CUDA graph can hold all of it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..problem import Problem, empty_gradients, empty_output
from .choosing import choose
from .coarse import attend_coarsely, shares
from .fine_backward import launch_key_value_gradients, launch_query_gradient, launch_sums
from .fine_forward import launch_forward
from .kept import Kept
from .pooling import pool_blocks


def forward(problem: Problem) -> tuple[Tensor, Tensor, Kept]:
    """Output, log-sum-exp, and what the backward needs of the call."""
    problem = _readable(problem)
    out, lse = empty_output(problem.query, problem.value)
    with _on_device_of(problem.query):
        means = pool_blocks(problem)
        chosen = choose(problem, means)
        coarse_out, coarse_lse = attend_coarsely(problem, means, chosen)
        launch_forward(problem, chosen, coarse_out, coarse_lse, out, lse)
    return out, lse, Kept(chosen, coarse_lse, *means)


def backward(
    problem: Problem,
    out: Tensor,
    lse: Tensor,
    kept: Kept,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    problem = _readable(problem)
    chosen, coarse_lse = kept.chosen, kept.coarse_lse
    grads = empty_gradients(problem.query, problem.key, problem.value)
    if not lse.numel():
        for grad in grads:
            grad.zero_()
        return grads
    if grad_out.stride(-1) != 1:
        grad_out = grad_out.contiguous()
    with _on_device_of(problem.query):
        delta, *pulled = launch_sums(problem, coarse_lse, out, lse, grad_out, grad_lse)
        share: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
        if problem.is_full:
            share = shares(problem, kept.means, chosen, coarse_lse, *pulled)
        known = (problem, chosen, lse, delta, grad_out)
        launch_query_gradient(*known, share[0], grads[0])
        launch_key_value_gradients(*known, share[1:], grads[1:])
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
