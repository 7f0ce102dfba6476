"""A call by kernels: which are launched, over which chunks.

Shapes: B batch, L tokens, D channels, N averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from ...launching import as_bytes, run
from ..problem import Problem
from .kernels import carry_kernel, gradient_kernel, leave_kernel, output_kernel

# Chosen for what the compiler says of registers; not measured on a GPU.
NUMBERS = 512  # of a program's state
STEP = 8  # tokens whose loads are on the way together
WIDTH = 128  # numbers of a state that one program carries along
NUM_WARPS = 2
# A chunk has at least so many tokens, and more where that would be more programs.
_CHUNK, _PROGRAMS = 64, 4096


def average(problem: Problem, *, wants_state: bool) -> tuple[Tensor, Tensor | None]:
    """Output [B, L, D] in the type of x and, if wanted, the state after it [B, D, N]."""
    x, mask = _rows(problem.x), _bytes(problem.mask)
    cut = _Cut.of(problem)
    after = None
    if wants_state:
        after = problem.p.new_empty(len(x), *problem.p.shape)
    out = None
    for number, rows in enumerate(problem.directions):
        p, q, gamma = (one[rows].contiguous() for one in (problem.p, problem.q, problem.gamma))
        is_reversed = number == 1
        states, _ = _enter(cut, x, mask, p, q, is_reversed, start=problem.state, after=after)
        is_whole = number == len(problem.directions) - 1
        dtype = x.dtype if is_whole else problem.dtype
        out = _outputs(cut, x, mask, p, q, gamma, states, out, is_reversed, dtype)
    assert out is not None
    return out, after


def gradients(
    problem: Problem, grad_out: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [B, L, D] in ``dtype``, and of weights and decays [kD, N].

    Those of a call without a state, of which the weight is all that p and gamma are in.
    """
    x, mask, grad = _rows(problem.x), _bytes(problem.mask), _rows(grad_out)
    cut = _Cut.of(problem)
    grad_x = None
    grad_weight, grad_q = torch.empty_like(problem.p), torch.empty_like(problem.q)
    for number, rows in enumerate(problem.directions):
        q, weight = problem.q[rows].contiguous(), problem.weight[rows]
        is_reversed = number == 1
        # The other way round, as a token gets its gradient from those that see it.
        states, _ = _enter(cut, grad, None, None, q, not is_reversed)
        is_whole = number == len(problem.directions) - 1
        kind = dtype if is_whole else problem.dtype
        against = (not is_reversed, kind)
        grad_x = _outputs(cut, grad, None, None, q, weight, states, grad_x, *against)

        states, slopes = _enter(cut, x, mask, None, q, is_reversed, slopes=True)
        by_weight, by_decay = torch.empty_like(states), torch.empty_like(states)
        run(
            gradient_kernel, cut.programs,
            x, mask, grad, q, states, slopes, by_weight, by_decay, *cut.sizes,
            *x.stride()[:2], *grad.stride()[:2],
            REVERSED=is_reversed, HAS_MASK=mask is not None, **cut.settings,
        )  # fmt: skip
        grad_weight[rows] = by_weight.sum((0, 1))
        grad_q[rows] = weight * by_decay.sum((0, 1))
    assert grad_x is not None
    return grad_x, grad_weight, grad_q


@dataclass(frozen=True)
class _Cut:
    """How sequences are cut into chunks, and channels shared out among programs."""

    batch: int
    length: int
    channels: int
    averages: int
    chunk: int
    rows: int

    @classmethod
    def of(cls, problem: Problem) -> _Cut:
        batch, length, channels = problem.x.shape
        averages = problem.p.shape[-1]
        rows = rows_per_program(averages)
        most = max(1, _PROGRAMS // (batch * triton.cdiv(channels, rows)))
        chunk = max(_CHUNK, triton.cdiv(triton.cdiv(length, most), STEP) * STEP)
        return cls(batch, length, channels, averages, chunk, rows)

    @property
    def chunks(self) -> int:
        return int(triton.cdiv(self.length, self.chunk))

    @property
    def programs(self) -> int:
        return self.batch * self.chunks * int(triton.cdiv(self.channels, self.rows))

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.length, self.chunk, self.chunks

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "CHANNELS": self.channels,
            "AVERAGES": self.averages,
            "PADDED_AVERAGES": triton.next_power_of_2(self.averages),
            "ROWS": self.rows,
            "STEP": STEP,
            "num_warps": NUM_WARPS,
        }


def rows_per_program(averages: int) -> int:
    """Channels whose states one program holds."""
    return int(NUMBERS // triton.next_power_of_2(averages))


def _enter(
    cut: _Cut,
    x: Tensor,
    mask: Tensor | None,
    p: Tensor | None,
    q: Tensor,
    is_reversed: bool,
    *,
    start: Tensor | None = None,
    after: Tensor | None = None,
    slopes: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The state that each chunk is given, float32 [B, chunks, D, N], and its derivative by q."""
    states = q.new_empty(cut.batch, cut.chunks, *q.shape)
    slope_states = torch.empty_like(states) if slopes else None
    run(
        leave_kernel, cut.programs,
        x, mask, p, q, states, slope_states, *cut.sizes, *x.stride()[:2],
        REVERSED=is_reversed, HAS_MASK=mask is not None, HAS_ENTRY=p is not None,
        HAS_SLOPES=slopes, **cut.settings,
    )  # fmt: skip
    wide = q.double()
    decays, decay_slopes = [], []
    for size in (cut.chunk, cut.length - (cut.chunks - 1) * cut.chunk):
        decays.append((wide**size).to(q.dtype))
        decay_slopes.append((size * wide ** (size - 1)).to(q.dtype))
    numbers = q.numel()
    run(
        carry_kernel, cut.batch * int(triton.cdiv(numbers, WIDTH)),
        states, slope_states, None if start is None else start.contiguous(), after,
        *decays, *decay_slopes, cut.chunks,
        NUMBERS=numbers, WIDTH=WIDTH, REVERSED=is_reversed, HAS_START=start is not None,
        HAS_AFTER=after is not None, HAS_SLOPES=slopes, num_warps=NUM_WARPS,
    )  # fmt: skip
    return states, slope_states


def _outputs(
    cut: _Cut,
    x: Tensor,
    mask: Tensor | None,
    p: Tensor | None,
    q: Tensor,
    gamma: Tensor,
    states: Tensor,
    other: Tensor | None,
    is_reversed: bool,
    dtype: torch.dtype,
) -> Tensor:
    """Outputs [B, L, D] from the state that each chunk is given, with the other direction's."""
    out = x.new_empty(x.shape, dtype=dtype)
    run(
        output_kernel, cut.programs,
        x, mask, p, q, gamma, states, other, out, *cut.sizes, *x.stride()[:2],
        REVERSED=is_reversed, HAS_MASK=mask is not None, HAS_ENTRY=p is not None,
        HAS_OTHER=other is not None, **cut.settings,
    )  # fmt: skip
    return out


def _rows(x: Tensor) -> Tensor:
    """x, or a copy of it whose channels lie side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _bytes(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else as_bytes(mask.contiguous())
