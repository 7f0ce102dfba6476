"""What tensors and sizes look like to kernels."""

from __future__ import annotations

import torch
import triton
from torch import Tensor


def as_bytes(flags: Tensor | None) -> Tensor | None:
    """A bool tensor as int8, without a copy."""
    return None if flags is None else flags.view(torch.int8)


def padded(channels: int) -> int:
    """Channels of a tile: a power of two, and 16 at least for matrix products."""
    return max(16, int(triton.next_power_of_2(channels)))
