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
    return Launch(rows, step, _warps(rows), 2)


def backward_launch(block_size: int, channels: int, dtype: torch.dtype) -> Launch:
    """For the kernels of query gradients, and of key and value gradients."""
    if dtype == torch.float32:
        return _full_precision(block_size, channels)
    rows = min(block_size, 32 if channels > 128 else 64)
    step = 32 if rows * channels > 32 * 64 else 64
    return Launch(rows, step, 8 if rows == 16 and channels > 128 else _warps(rows), 2)


def _warps(rows: int) -> int:
    # A warp takes 16 rows of a product of 64 or more; more warps would repeat each other's work.
    # Smaller products are shared out along their other side.
    return {16: 4, 32: 8, 64: 4, 128: 8}[rows]


def _full_precision(block_size: int, channels: int) -> Launch:
    # Products of float32 in full precision run outside the matrix units and hold more registers.
    rows = min(block_size, 64 if channels <= 64 else 32)
    return Launch(rows, 32 if rows * channels == 32 * 64 else 16, 8, 2)


def coarse_launch(blocks: int, channels: int, dtype: torch.dtype) -> Launch:
    """For the kernels over means; ``rows`` blocks of a program against ``step`` of the others.

    ``blocks`` is how many there are of either.
    """
    if dtype == torch.float32:
        return Launch(16, 16, 4, 2)
    if channels > 128:
        return Launch(16, 16, 8, 1)
    # Where one product takes three, it holds more registers.
    if channels > 64 or blocks <= 32 or product_precision(dtype) == "tf32x3":
        return Launch(16, 32, 4, 2)
    return Launch(32, 64, 8, 2)


def tokens_per_step(block_size: int, channels: int) -> int:
    """Tokens of a block that kernels which only sum up read per step; ``channels`` is padded."""
    return min(block_size, max(8192 // channels, 16))


def score_precision(dtype: torch.dtype) -> str:
    """Of products that scores between means come from, for inputs of a type.

    Scores have to be right to float32's last digits: near ties are chosen by them. Three products
    of tf32 numbers give as much.
    """
    return "ieee" if dtype == torch.float32 else "tf32x3"


def product_precision(dtype: torch.dtype) -> str:
    """Of all other products between means: more than the inputs' type holds."""
    return "tf32" if dtype == torch.bfloat16 else score_precision(dtype)
