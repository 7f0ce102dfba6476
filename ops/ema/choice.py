"""Which implementation a call gets."""

from __future__ import annotations

from torch import Tensor

from . import triton


def choose(impl: str, x: Tensor, averages: int, truncation: int | None) -> str:
    """The implementation that ``impl`` means for x [B, L, D].

    Raises:
        ValueError: it can't serve the call; says why.
    """
    is_short = truncation is not None and truncation < x.shape[1]
    if impl == "scan" and is_short:
        raise ValueError(
            f'impl="scan" serves no truncation below the length {x.shape[1]}, got {truncation}'
        )
    if impl == "triton" and (reason := triton.why_unsupported(x, averages, truncation)):
        raise ValueError(f'impl="triton" can\'t serve this call: {reason}')
    if impl != "auto":
        return impl
    if is_short:
        return "fft"
    if x.is_cuda and triton.why_unsupported(x, averages, truncation) is None:
        return "triton"
    return "scan"
