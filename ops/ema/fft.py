"""The average as a convolution by Fourier transforms, with its kernel formed whole.

Shapes: B batch, D channels, N averages, L tokens, T taps, F numbers of a transform.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from . import carried
from .powers import series, sums
from .problem import Problem, channels_first

# Conjugates are formed at once: called from a compiled program, PyTorch forgets those that it puts
# off.

# Numbers of a transform's part: what stays in the cache of a core.
_NUMBERS = 1 << 18


def average(problem: Problem, *, wants_state: bool) -> tuple[Tensor, Tensor | None]:
    """Output [B, L, D] in the type of x and, if wanted, the state after it [B, D, N]."""
    out = convolve(channels_first(problem.tokens()), _kernels(problem))
    if problem.state is not None:
        out += carried.outputs(problem)
    after = carried.state_after(problem) if wants_state else None
    return channels_first(out).to(problem.x.dtype), after


def gradients(
    problem: Problem, grad_out: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [B, L, D] in ``dtype``, and of weights and decays [kD, N].

    Those of a call without a state, of which the weight is all that p and gamma are in.
    """
    x, grad = channels_first(problem.tokens()), channels_first(grad_out.to(problem.dtype))
    grad_x, grads = differentiate(x, _kernels(problem), grad)
    grad_weight, by_q = sums(torch.cat(grads)[None], problem.q)
    return channels_first(grad_x).to(dtype), grad_weight[0], problem.weight * by_q[0]


def _kernels(problem: Problem) -> tuple[Tensor, ...]:
    """The kernel [D, T] of each direction."""
    kernel = series(problem.weight[None], problem.q, problem.taps)[0]
    return tuple(kernel[rows] for rows in problem.directions)


def good_length(least: int) -> int:
    """The smallest number of at least ``least`` without prime factors above 5."""
    best = 1 << max(least - 1, 0).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            twos = threes << max(-(-least // threes) - 1, 0).bit_length()
            best = min(best, twos)
            threes *= 3
        fives *= 5
    return best


def convolve(x: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
    """Σ_j kernels[0][j] x[t-j], and Σ_j kernels[1][j] x[t+j] if there are two.

    Args:
        x: [B, D, L].
        kernels: [D, T] each.

    Returns:
        [B, D, L].
    """
    out = torch.empty_like(x)
    for own, size in _parts(x, kernels[0]):
        spectrum = torch.fft.rfft(x[:, own], size)
        spectrum *= _response(kernels, own, size)
        out[:, own] = torch.fft.irfft(spectrum, size)[..., : x.shape[-1]]
    return out


def differentiate(
    x: Tensor, kernels: tuple[Tensor, ...], grad_out: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Gradients of x [B, D, L] and of the kernels [D, T]."""
    grad_x = torch.empty_like(x)
    grads = tuple(torch.empty_like(kernel) for kernel in kernels)
    for own, size in _parts(x, kernels[0]):
        grad = torch.fft.rfft(grad_out[:, own], size)
        correlation = (torch.fft.rfft(x[:, own], size).conj_physical() * grad).sum(0)
        grad *= _response(kernels, own, size).conj_physical()
        grad_x[:, own] = torch.fft.irfft(grad, size)[..., : x.shape[-1]]
        # A spectrum's conjugate is that of the reversed sequence.
        for one, part in zip(grads, (correlation, correlation.conj_physical()), strict=False):
            one[own] = torch.fft.irfft(part, size)[..., : one.shape[-1]]
    return grad_x, grads


def _response(kernels: tuple[Tensor, ...], own: slice, size: int) -> Tensor:
    """Spectrum of the kernels' sum, the second reversed and wrapped to the end."""
    response: Tensor = torch.fft.rfft(kernels[0][own], size)
    for other in kernels[1:]:
        response = response + torch.fft.rfft(other[own], size).conj_physical()
    return response


def _parts(x: Tensor, kernel: Tensor) -> Iterator[tuple[slice, int]]:
    """Channels that are transformed together, and F."""
    batch, channels, length = x.shape
    # What goes beyond either end must not come round to the other.
    size = good_length(length + kernel.shape[-1] - 1)
    step = channels if x.device.type != "cpu" else max(1, _NUMBERS // (batch * size))
    for start in range(0, channels, step):
        yield slice(start, start + step), size
