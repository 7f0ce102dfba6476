"""How kernels are launched, and what tensors and sizes look like to them."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor


def run(kernel: Any, programs: int, *arguments: Any, **settings: Any) -> None:
    """Launches a kernel, if there is anything to do."""
    if programs:
        # Said aloud because Triton's own default is about to change.
        kernel[(programs,)](*arguments, enable_fp_fusion=True, **settings)


def as_bytes(flags: Tensor | None) -> Tensor | None:
    """A bool tensor as int8, without a copy."""
    return None if flags is None else flags.view(torch.int8)


def padded(channels: int) -> int:
    """Channels of a tile: a power of two, and 16 at least for matrix products."""
    return max(16, int(triton.next_power_of_2(channels)))
