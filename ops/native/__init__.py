"""MRA attention in compiled C++ for CPUs, forward and backward, behind PyTorch operators.

Python hands a call over (`call`) to a shared library (`library`), which works on it in one parallel
region per direction. `source` has a file for each stage; all but `library.cpp` and `scheduling.cpp`
is compiled once for each kind of processor.
"""

from __future__ import annotations

from torch import Tensor

from ..options import MRAOptions
from .library import why_missing

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


def why_unsupported(query: Tensor, _value: Tensor, _options: MRAOptions) -> str | None:
    """Why the kernels can't serve a call, or None if they can."""
    if why_missing:
        return why_missing
    if query.device.type != "cpu":
        return f"it needs CPU tensors, got {query.device}"
    return None
