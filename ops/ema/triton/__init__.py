"""The scan in Triton kernels, forward and backward.

`launch` and `kernels` need triton; this file doesn't, and says whether they can serve a call.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

_INSTALLED = importlib.util.find_spec("triton") is not None
# Triton's interpreter runs kernels on the CPU, to test them; it is chosen when triton is imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MOST_AVERAGES = 128


def why_unsupported(x: Tensor, averages: int, truncation: int | None) -> str | None:
    """Why the kernels can't serve a call, or None if they can."""
    if not _INSTALLED:
        return "triton is not installed"
    if not x.is_cuda and not _INTERPRETED:
        return f"it needs CUDA tensors, got {x.device}"
    if x.is_cuda and torch.version.hip:
        return "it needs an NVIDIA GPU, and this PyTorch is built for AMD's"
    if x.dtype not in _DTYPES:
        return f"it needs float16, bfloat16 or float32, got {x.dtype}"
    if averages > _MOST_AVERAGES:
        return f"it serves up to {_MOST_AVERAGES} averages per channel, got {averages}"
    if truncation is not None and truncation < x.shape[1]:
        return f"it serves no truncation below the length {x.shape[1]}, got {truncation}"
    return None
