"""Where Triton kernels run, and how they are launched. Nothing here needs triton."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

_INSTALLED = importlib.util.find_spec("triton") is not None
# Triton's interpreter runs kernels on the CPU, to test them; it is chosen when triton is imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def why_no_kernels(x: Tensor) -> str | None:
    """Why no kernel can serve a call with a tensor like ``x``, or None if some can."""
    if not _INSTALLED:
        return "triton is not installed"
    if not x.is_cuda and not _INTERPRETED:
        return f"it needs CUDA tensors, got {x.device}"
    if x.is_cuda and torch.version.hip:
        return "it needs an NVIDIA GPU, and this PyTorch is built for AMD's"
    if x.dtype not in _DTYPES:
        return f"it needs float16, bfloat16 or float32, got {x.dtype}"
    return None


def run(kernel: Any, programs: int, *arguments: Any, **settings: Any) -> None:
    """Launches a kernel, if there is anything to do."""
    if programs:
        # Said aloud because Triton's own default is about to change.
        kernel[(programs,)](*arguments, enable_fp_fusion=True, **settings)


def as_bytes(flags: Tensor | None) -> Tensor | None:
    """A bool tensor as int8, without a copy."""
    return None if flags is None else flags.view(torch.int8)
