"""MRA attention in Triton kernels, forward and backward, behind PyTorch operators.

A call (`whole_call`) goes through `pooling`, `choosing`, `coarse`, `lists` and `fine_forward`, its
backward through `coarse`, `salient`, `lists` and `fine_backward`; each launches the kernels of that
name in `kernels`. These need triton; this file and `operators` don't, so that operators are there
before anything is traced, and where triton is not installed.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from ..options import MRAOptions

SERVES = frozenset(
    {
        "block_size",
        "block_per_row",
        "num_blocks",
        "approx_mode",
        "initial_prior_first_n_blocks",
        "initial_prior_diagonal_n_blocks",
        "selection",
        "coarse_key_size",
        "salient_keys",
        "block_score",
        "exact_up_to",
    }
)

_INSTALLED = importlib.util.find_spec("triton") is not None
# Triton's interpreter runs kernels on the CPU, to test them; it is chosen when triton is imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def why_unsupported(query: Tensor, value: Tensor, options: MRAOptions) -> str | None:
    """Why the kernels can't serve a call, or None if they can."""
    if not _INSTALLED:
        return "triton is not installed"
    if not query.is_cuda and not _INTERPRETED:
        return f"it needs CUDA tensors, got {query.device}"
    if query.is_cuda and torch.version.hip:
        return "it needs an NVIDIA GPU, and this PyTorch is built for AMD's"
    if query.dtype not in _DTYPES:
        return f"it needs float16, bfloat16 or float32, got {query.dtype}"
    if options.block_size < 16:
        return f"it needs block_size 16, 32, 64 or 128, got {options.block_size}"
    widest = max(query.shape[-1], value.shape[-1])
    if widest > 256:
        return f"it serves up to 256 channels, got {widest}"
    return None
