"""MRA attention in plain PyTorch: fast on CPU, right on any device.

Forward and backward are operators of their own, because the work is laid out by looking at the
chosen blocks. Heads are worked on in groups, see `head_group`.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from ..operator_pair import OperatorPair, Tensors
from ..plan import choose_blocks
from ..pooled import parts
from ..problem import Problem, empty_choice, empty_gradients, empty_output
from .head_group import HeadGroup, backward, forward

# Bytes of keys and values of the heads worked on together: bounds the coarse matrices and the
# copies that tails and strided inputs need.
_GROUP_BYTES_CPU = 16 << 20
_GROUP_BYTES = 2 << 30


def _forward(problem: Problem) -> Tensors:
    """Output, log-sum-exp and chosen blocks (bool [B, H, X, Y])."""
    options = problem.options
    out, lse = empty_output(problem.query, problem.value)
    chosen = empty_choice(problem.query, problem.key, options.block_size)
    for part in _parts(problem):
        group = HeadGroup.cut(part, problem)
        pooled = group.pooled
        chosen[part] = choose_blocks(pooled.scores, pooled.query_counts, pooled.key_counts, options)
        forward(group, chosen[part], problem.is_full, out[part], lse[part])
    return out, lse, chosen


def _backward(
    problem: Problem, results: Tensors, grad_out: Tensor, grad_lse: Tensor | None
) -> Tensors:
    out, lse, chosen = results
    grads = empty_gradients(problem.query, problem.key, problem.value)
    for part in _parts(problem):
        backward(
            HeadGroup.cut(part, problem),
            chosen[part],
            problem.is_full,
            out[part],
            lse[part],
            grad_out[part],
            None if grad_lse is None else grad_lse[part],
            (grads[0][part], grads[1][part], grads[2][part]),
        )
    return grads


def _parts(problem: Problem) -> Iterator[tuple[slice, slice]]:
    query, key, value = problem.query, problem.key, problem.value
    limit = _GROUP_BYTES_CPU if query.device.type == "cpu" else _GROUP_BYTES
    head_bytes = key.element_size() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    return parts(query.shape[0], query.shape[1], limit // max(head_bytes, 1))


def _empty_kept(query: Tensor, key: Tensor, _value: Tensor, block_size: int) -> Tensors:
    return (empty_choice(query, key, block_size),)


operators = OperatorPair("eager", _forward, _backward, _empty_kept, 1)
attend = operators.attend
