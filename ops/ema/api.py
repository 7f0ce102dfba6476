"""The public face of the average: checks what it is given, then hands it to an implementation."""

from __future__ import annotations

from typing import Any, Literal, get_args, overload

from torch import Tensor

from ..blocks import accumulation_dtype
from ..checks import (
    FLOATS,
    check_integer,
    check_mask,
    check_scale,
    outside_autocast,
    refuse_forward_mode,
)
from . import operators, reference
from .choice import choose

EMAImplementation = Literal["auto", "reference", "scan", "fft", "triton"]


@overload
def damped_ema(
    x: Tensor,
    p: Tensor,
    q: Tensor,
    gamma: Tensor,
    *,
    scale: float | None = ...,
    bidirectional: bool = ...,
    truncation: int | None = ...,
    state: Tensor | None = ...,
    mask: Tensor | None = ...,
    return_state: Literal[False] = ...,
    impl: EMAImplementation = ...,
) -> Tensor: ...


@overload
def damped_ema(
    x: Tensor,
    p: Tensor,
    q: Tensor,
    gamma: Tensor,
    *,
    scale: float | None = ...,
    bidirectional: bool = ...,
    truncation: int | None = ...,
    state: Tensor | None = ...,
    mask: Tensor | None = ...,
    return_state: Literal[True],
    impl: EMAImplementation = ...,
) -> tuple[Tensor, Tensor]: ...


def damped_ema(
    x: Tensor,
    p: Tensor,
    q: Tensor,
    gamma: Tensor,
    *,
    scale: float | None = None,
    bidirectional: bool = False,
    truncation: int | None = None,
    state: Tensor | None = None,
    mask: Tensor | None = None,
    return_state: bool = False,
    impl: EMAImplementation = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """N exponential moving averages of every channel, damped and added up.

    Mega: Moving Average Equipped Gated Attention (arXiv 2209.10655), section 3.1. In the paper's
    letters p = alpha·beta and q = 1 - alpha·δ, and gamma is η. For channel d and average n::

        h[t] = q h[t-1] + p x[t]          y[t] = scale Σ_n gamma h[t]

    which is a convolution with the kernel k[j] = scale Σ_n gamma p q^j. Bidirectional, the second
    half of the rows does the same from the last token to the first, and both are added: a token
    itself counts in both. The residual (ω x) and the activation are the model's.

    Everything is computed in float32 (float64 for float64 inputs), whatever the type of x. Give q
    in float32 too: decays near 1 do not survive bfloat16. Autocast changes nothing. Time grows
    linearly with length, with its logarithm for a long truncation; the backward keeps the inputs
    alone.

    Args:
        x: [B, L, D], float16, bfloat16, float32 or float64; any L.
        p: [kD, N], what of a token enters each average; k is 2 if bidirectional, else 1, and the
            first D rows go forwards. Any floating type, as are q and gamma.
        q: [kD, N], what of an average stays from token to token, from 0 to 1.
        gamma: [kD, N], the weight of each average in the output.
        scale: factor of the output, 1/sqrt(N) by default.
        bidirectional: whether tokens also see what follows.
        truncation: taps of the kernel; a token sees itself and the truncation - 1 tokens before it
            (and behind it, if bidirectional). None: all.
        state: [B, D, N], h after the tokens before x. None: there were none.
        mask: bool [B, L], True = a real token. Padding counts as a token of zeros, whatever stands
            there: averages decay across it. So padding in front changes nothing, and padding
            behind only the state. None: all are real.
        return_state: whether to return h after the last token too.
        impl: "reference" is the recurrence, token by token in float64. "scan" cuts the tokens into
            chunks and carries h between them; "fft" convolves by Fourier transforms; both run
            everywhere. "triton" is the scan as kernels, for CUDA devices. The scans serve no
            truncation. "auto" takes what is fastest. An explicit choice never falls back.

    Returns:
        y, [B, L, D] in the type of x; with ``return_state`` also h after position L - 1,
        float32 (float64 for float64 inputs) [B, D, N].

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: a shape, value or device does not fit; a state together with
            ``bidirectional``, or with a truncation, which no state of this size can carry (keep
            the last truncation - 1 tokens in its place, and put them before x); or ``impl`` can't
            serve the call.
    """
    if impl not in get_args(EMAImplementation):
        raise ValueError(f"impl must be one of {get_args(EMAImplementation)}, got {impl!r}")
    _check_tensors(x, p, q, gamma, bidirectional)
    _check_mask(x, mask)
    _check_state(x, p, state, return_state, bidirectional, truncation)
    scale = check_scale(scale, p.shape[-1])
    dtype = accumulation_dtype(x.dtype)
    with outside_autocast(x):
        p, q, gamma = p.to(dtype), q.to(dtype), gamma.to(dtype) * scale
        if impl == "reference":
            taps = x.shape[1] if truncation is None else truncation
            out, after = reference.average(
                x, p, q, gamma, mask, state, bidirectional=bidirectional, taps=taps
            )
            return (out, after.to(dtype)) if return_state else out
        method = choose(impl, x, p.shape[-1], truncation)
        refuse_forward_mode(method, x=x, p=p, q=q, gamma=gamma)
        state = None if state is None else state.to(dtype)
        settings = (truncation, bidirectional, return_state, method)
        out, after = operators.forward(x, p, q, gamma, mask, state, *settings)
    return (out, after) if return_state else out


def _check_tensors(x: Tensor, p: Tensor, q: Tensor, gamma: Tensor, bidirectional: bool) -> None:
    for name, tensor in (("x", x), ("p", p), ("q", q), ("gamma", gamma)):
        _check_floats(name, tensor, x)
    if x.dim() != 3 or x.shape[-1] == 0:
        raise ValueError(f"x must have shape [batch, tokens, channels], got {tuple(x.shape)}")
    rows = (2 if bidirectional else 1) * x.shape[-1]
    if p.dim() != 2 or p.shape[0] != rows or p.shape[1] == 0:
        side = "both directions" if bidirectional else "one direction"
        raise ValueError(
            f"p must have shape [{rows}, averages] for {x.shape[-1]} channels and {side}, "
            f"got {tuple(p.shape)}"
        )
    for name, tensor in (("q", q), ("gamma", gamma)):
        if tensor.shape != p.shape:
            raise ValueError(
                f"{name} must have the shape {tuple(p.shape)} of p, got {tuple(tensor.shape)}"
            )


def _check_floats(name: str, tensor: Any, x: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in FLOATS:
        raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")
    if tensor.device != x.device:
        raise ValueError(f"{name} must be on the device {x.device} of x, got {tensor.device}")


def _check_mask(x: Tensor, mask: Tensor | None) -> None:
    if mask is None:
        return
    check_mask("mask", mask, *x.shape[:2])
    if mask.device != x.device:
        raise ValueError(f"mask must be on the device {x.device} of x, got {mask.device}")


def _check_state(
    x: Tensor,
    p: Tensor,
    state: Tensor | None,
    return_state: bool,
    bidirectional: bool,
    truncation: int | None,
) -> None:
    if truncation is not None:
        check_integer("truncation", truncation, least=1)
    named = "return_state" if state is None else "state"
    if state is not None or return_state:
        if bidirectional:
            raise ValueError(f"{named} needs bidirectional=False: what follows has no state")
        if truncation is not None:
            raise ValueError(
                f"{named} needs truncation=None, got {truncation}: a state does not forget; keep "
                "the last truncation - 1 tokens instead, and put them before x"
            )
    if state is not None:
        _check_floats("state", state, x)
        shape = (x.shape[0], *p.shape)
        if tuple(state.shape) != shape:
            raise ValueError(
                f"state must have shape {shape} [batch, channels, averages], "
                f"got {tuple(state.shape)}"
            )
