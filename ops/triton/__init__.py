"""MRA attention in Triton kernels, forward and backward, behind PyTorch operators.

A call (`whole_call`) goes through `pooling`, `choosing`, `coarse`, `lists` and `fine_forward`, its
backward through `coarse`, `salient`, `lists` and `fine_backward`; each launches the kernels of that
name in `kernels`. These need triton; this file and `operators` don't, so that operators are there
before anything is traced, and where triton is not installed.
"""

from __future__ import annotations

from torch import Tensor

from ..launching import why_no_kernels
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


def why_unsupported(query: Tensor, value: Tensor, options: MRAOptions) -> str | None:
    """Why the kernels can't serve a call, or None if they can."""
    if reason := why_no_kernels(query):
        return reason
    if options.block_size < 16:
        return f"it needs block_size 16, 32, 64 or 128, got {options.block_size}"
    widest = max(query.shape[-1], value.shape[-1])
    if widest > 256:
        return f"it serves up to 256 channels, got {widest}"
    return None
