"""The scan in Triton kernels, forward and backward.

`launch` and `kernels` need triton; this file doesn't, and says whether they can serve a call.
"""

from __future__ import annotations

from torch import Tensor

from ...launching import why_no_kernels

_MOST_AVERAGES = 128


def why_unsupported(x: Tensor, averages: int, truncation: int | None) -> str | None:
    """Why the kernels can't serve a call, or None if they can."""
    if reason := why_no_kernels(x):
        return reason
    if averages > _MOST_AVERAGES:
        return f"it serves up to {_MOST_AVERAGES} averages per channel, got {averages}"
    if truncation is not None and truncation < x.shape[1]:
        return f"it serves no truncation below the length {x.shape[1]}, got {truncation}"
    return None
