"""Matrices whose entries depend on the distance between token and output alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def toeplitz(entries: Tensor, columns: int) -> Tensor:
    """Matrices [D, R, C] with M[s, t] = entries[R - 1 + t - s], of entries [D, R + C - 1]."""
    return entries.unfold(-1, columns, 1).flip(1)


def diagonal_sums(matrices: Tensor) -> Tensor:
    """What `toeplitz` gives back to its entries: [D, R, C] to [D, R + C - 1]."""
    count, rows, columns = matrices.shape
    # In rows that are one number shorter, each row stands one place further right.
    flat = pad(matrices.flip(1), (0, rows)).view(count, -1)
    width = rows + columns - 1
    return flat[:, : rows * width].view(count, rows, width).sum(1)


def two_sided(kernels: tuple[Tensor, ...]) -> Tensor:
    """One kernel over the distances 1 - T to T - 1, of [D, T] each way: [D, 2T - 1].

    The first reaches tokens before, at distances of 0 and more; the second, if there is one, those
    behind.
    """
    taps = kernels[0].shape[-1]
    out = pad(kernels[0], (taps - 1, 0))
    for other in kernels[1:]:
        out[:, :taps] += other.flip(-1)
    return out


def one_sided(grad: Tensor, count: int) -> tuple[Tensor, ...]:
    """What `two_sided` gives back to its ``count`` kernels: [D, T] each, of [D, 2T - 1]."""
    taps = (grad.shape[-1] + 1) // 2
    return (grad[:, taps - 1 :], torch.flip(grad[:, :taps], (-1,)))[:count]
