"""MRA attention by Triton kernels, as PyTorch operators with gradients."""

from __future__ import annotations

from torch import Tensor

from ..operator_pair import OperatorPair
from ..problem import Problem
from .kept import Kept, empty_kept


def _forward(problem: Problem) -> tuple[Tensor, Tensor, Kept]:
    # Only when it runs: it needs triton.
    from .whole_call import forward

    return forward(problem)


def _backward(
    problem: Problem,
    out: Tensor,
    lse: Tensor,
    kept: Kept,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    from .whole_call import backward

    return backward(problem, out, lse, kept, grad_out, grad_lse)


operators = OperatorPair("triton", _forward, _backward, Kept, empty_kept)
attend = operators.attend
