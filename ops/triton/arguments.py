"""What a call's sizes look like to kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton

from ..problem import Problem


def padded(channels: int) -> int:
    """Channels of a tile: a power of two, and 16 at least for matrix products."""
    return max(16, int(triton.next_power_of_2(channels)))


def lengths(problem: Problem) -> tuple[float, int, int, int]:
    """The scale, how many heads, queries and keys."""
    return problem.scale, *problem.query.shape[1:3], problem.key.shape[2]


def strides(problem: Problem) -> tuple[int, ...]:
    """Of batch row, head and token, for query, key and value."""
    return (
        *problem.query.stride()[:3],
        *problem.key.stride()[:3],
        *problem.value.stride()[:3],
    )


def widest(problem: Problem) -> int:
    """The wider of D and Dv, padded."""
    return padded(max(problem.query.shape[-1], problem.value.shape[-1]))


def sizes(problem: Problem) -> dict[str, Any]:
    """Channels, block size and precision, as the kernels of the fine scale name them."""
    channels, value_channels = problem.query.shape[-1], problem.value.shape[-1]
    return {
        "CHANNELS": channels,
        "VALUE_CHANNELS": value_channels,
        "PADDED_CHANNELS": padded(channels),
        "PADDED_VALUE_CHANNELS": padded(value_channels),
        "BLOCK_SIZE": problem.options.block_size,
        "PRECISION": "ieee" if problem.query.dtype == torch.float32 else "tf32",
    }
