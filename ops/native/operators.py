"""MRA attention by compiled kernels for CPUs, as PyTorch operators with gradients."""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor

from ..kept import Kept, empty_kept
from ..operator_pair import OperatorPair
from ..problem import Problem, empty_gradients, empty_output
from .call import Call
from .library import run


def _forward(problem: Problem) -> tuple[Tensor, Tensor, Kept]:
    out, lse = empty_output(problem.query, problem.value)
    kept = empty_kept(problem.query, problem.key, problem.value, asdict(problem.options))
    run(Call.of(problem, out=out, lse=lse, **kept._asdict()), backward=False)
    return out, lse, kept


def _backward(
    problem: Problem,
    out: Tensor,
    lse: Tensor,
    kept: Kept,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    grads = empty_gradients(problem.query, problem.key, problem.value)
    # The library reads these as they were written.
    kept = Kept(*(one.contiguous() for one in kept))
    grad_query, grad_key, grad_value = grads
    call = Call.of(
        problem,
        out=out,
        lse=lse,
        grad_out=grad_out,
        grad_lse=grad_lse,
        grad_query=grad_query,
        grad_key=grad_key,
        grad_value=grad_value,
        **kept._asdict(),
    )
    run(call, backward=True)
    return grads


operators = OperatorPair("native", _forward, _backward, Kept, empty_kept)
attend = operators.attend
