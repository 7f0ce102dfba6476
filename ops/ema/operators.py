"""The average as two PyTorch operators, opaque to tracing, that autograd knows.

The backward keeps the inputs alone, and forms tables and states again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import carried, fft, scan
from .problem import Problem

_PROBLEM = (
    "Tensor x, Tensor p, Tensor q, Tensor gamma, Tensor? mask, Tensor? state, "
    "SymInt? truncation, bool bidirectional, bool wants_state, str method"
)
_TENSORS = 6


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    *call, wants_state, method = inputs
    problem = Problem(*call)
    with torch.autocast(problem.x.device.type, enabled=False):
        out, after = _run(problem, wants_state, method)
    return out, _no_state(problem.p) if after is None else after.contiguous()


def _run(problem: Problem, wants_state: bool, method: str) -> tuple[Tensor, Tensor | None]:
    x, state = problem.x, problem.state
    if x.numel():
        out, after = _way(method).average(problem, wants_state=wants_state)
        return out, after
    if state is None:
        state = problem.p.new_zeros(len(x), *problem.p.shape)
    nothing = state.clone(memory_format=torch.contiguous_format)
    return x.new_empty(x.shape), nothing if wants_state else None


def _backward(grad_out: Tensor, grad_after: Tensor | None, *inputs: Any) -> tuple[Tensor, ...]:
    *call, _wants_state, method = inputs
    problem = Problem(*call)
    with torch.autocast(problem.x.device.type, enabled=False):
        return _differentiate(problem, grad_out, grad_after, method)


def _differentiate(
    problem: Problem, grad_out: Tensor, grad_after: Tensor | None, method: str
) -> tuple[Tensor, ...]:
    x, p, q, gamma, state = problem.x, problem.p, problem.q, problem.gamma, problem.state
    if not x.numel():
        zeros = (one.new_zeros(one.shape) for one in (x, p, q, gamma))
        return (*zeros, _gradient_of_nothing(problem, grad_after))
    # What a state adds is added before it is rounded.
    wide = x.dtype if grad_after is None else problem.dtype
    grad_x, grad_weight, grad_q = _way(method).gradients(problem, grad_out, wide)
    grad_p, grad_gamma, grad_state = gamma * grad_weight, p * grad_weight, _no_state(p)
    if state is not None or grad_after is not None:
        more = carried.gradients(problem, grad_out, grad_after)
        grad_q = grad_q + more.q
        grad_x = grad_x if more.x is None else grad_x + more.x
        grad_p = grad_p if more.p is None else grad_p + more.p
        grad_gamma = grad_gamma if more.gamma is None else grad_gamma + more.gamma
        grad_state = grad_state if more.state is None else more.state.contiguous()
    if problem.mask is not None:
        grad_x.masked_fill_(~problem.mask[..., None], 0)
    return grad_x.to(x.dtype).contiguous(), grad_p, grad_q, grad_gamma, grad_state


def _gradient_of_nothing(problem: Problem, grad_after: Tensor | None) -> Tensor:
    """Of the state, where there are no tokens behind it."""
    if problem.state is None:
        return _no_state(problem.p)
    if grad_after is None:
        return torch.zeros_like(problem.state, memory_format=torch.contiguous_format)
    return grad_after.clone(memory_format=torch.contiguous_format)


def _way(method: str) -> Any:
    """The module that computes ``average`` and its ``gradients``."""
    if method == "triton":
        # Only when it runs: it needs triton.
        from .triton import launch

        return launch
    return {"scan": scan, "fft": fft}[method]


def _no_state(p: Tensor) -> Tensor:
    return p.new_empty(0)


def _fake_forward(x: Tensor, p: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    wants_state = rest[-2]
    return x.new_empty(x.shape), p.new_empty(x.shape[0], *p.shape) if wants_state else _no_state(p)


def _fake_backward(_grad: Tensor, _after: Any, *inputs: Any) -> tuple[Tensor, ...]:
    x, p, q, gamma, _mask, state, *_ = inputs
    parameters = (one.new_empty(one.shape) for one in (x, p, q, gamma))
    return (*parameters, _no_state(p) if state is None else state.new_empty(state.shape))


forward = torch.library.custom_op(
    "mra_plugin::ema_forward",
    _forward,
    mutates_args=(),
    schema=f"({_PROBLEM}) -> (Tensor, Tensor)",
)
backward = torch.library.custom_op(
    "mra_plugin::ema_backward",
    _backward,
    mutates_args=(),
    schema=(
        f"(Tensor grad_out, Tensor? grad_after, {_PROBLEM}) -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)
forward.register_fake(_fake_forward)
backward.register_fake(_fake_backward)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.settings = inputs[_TENSORS:]
    if not ctx.settings[-2]:
        ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad_out: Tensor | None, grad_after: Tensor | None) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors  # checkpointing gives them once
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    *grads, grad_state = backward(grad_out, grad_after, *tensors, *ctx.settings)
    given = None if tensors[5] is None else grad_state
    return (*grads, None, given, *(None,) * len(ctx.settings))


forward.register_autograd(_gradients, setup_context=_remember)
