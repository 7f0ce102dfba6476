"""Tile sizes and launch settings, by shape and type.

Chosen for what the compiler says of registers and shared memory on sm_80 to sm_100; not measured
on a GPU.
"""

from typing import NamedTuple

import torch


class Launch(NamedTuple):
    """How one kernel is launched.

    Attributes:
        rows: queries (or keys) of a program, a part of a block or all of it.
        step: keys (or queries) per step of the inner loop.
        num_warps: warps per program.
        num_stages: steps whose loads are in flight.
    """

    rows: int
    step: int
    num_warps: int
    num_stages: int


def forward_launch(block_size: int, channels: int, dtype: torch.dtype) -> Launch:
    """For the forward kernel; ``channels`` is the wider of D and Dv, padded."""
    if dtype == torch.float32:
        return _full_precision(block_size, channels)
    rows = min(block_size, 64 if channels > 128 else 128)
    step = 32 if rows * channels > 64 * 128 else 64
    return Launch(rows, step, 4 if rows == 16 else 8, 2)


def backward_launch(block_size: int, channels: int, dtype: torch.dtype) -> Launch:
    """For the kernels of query gradients, and of key and value gradients."""
    if dtype == torch.float32:
        return _full_precision(block_size, channels)
    rows = min(block_size, 32 if channels > 128 else 64)
    step = 32 if rows * channels > 32 * 64 else 64
    return Launch(rows, step, 4 if rows == 16 and channels <= 128 else 8, 2)


def _full_precision(block_size: int, channels: int) -> Launch:
    # Products of float32 in full precision run outside the matrix units and hold more registers.
    return Launch(min(block_size, 64 if channels <= 64 else 32), 16, 8, 2)
