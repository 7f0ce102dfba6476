"""How kernels in Triton's interpreter are held against the reference in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import agreement

# The interpreter rounds bfloat16 towards zero, which doubles its error.
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 1.5e-3}


def compare(
    inputs: tuple[Tensor, Tensor, Tensor],
    *masks: Tensor | None,
    limits: dict[torch.dtype, float] = LIMITS,
    **options: Any,
) -> None:
    """Checks both directions of a call."""
    agreement.compare("triton", inputs, *masks, limits=limits, **options)
