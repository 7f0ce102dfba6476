"""The average token by token in float64: what every other implementation is held against."""

from __future__ import annotations

import torch
from torch import Tensor


def average(
    x: Tensor,
    p: Tensor,
    q: Tensor,
    gamma: Tensor,
    mask: Tensor | None,
    state: Tensor | None,
    *,
    bidirectional: bool,
    taps: int,
) -> tuple[Tensor, Tensor]:
    """The recurrence, forwards and then, if ``bidirectional``, backwards.

    Args:
        x: [B, L, D].
        p: [kD, N].
        q: [kD, N].
        gamma: [kD, N], the scale multiplied in.
        mask: bool [B, L] or None.
        state: [B, D, N] or None.
        bidirectional: whether rows from D on average what follows.
        taps: T, a token is seen by itself and the T - 1 others nearest to it.

    Returns:
        Output [B, L, D] in the type of x, and the state after the last token, float64 [B, D, N].
    """
    dtype, channels = x.dtype, x.shape[-1]
    x, p, q, gamma = (tensor.double() for tensor in (x, p, q, gamma))
    if mask is not None:
        x = x.masked_fill(~mask[..., None], 0)
    start = x.new_zeros(x.shape[0], channels, p.shape[-1]) if state is None else state.double()
    own = slice(channels)
    out, last = _one_way(x, p[own], q[own], gamma[own], start, taps)
    if bidirectional:
        own = slice(channels, None)
        flipped, _ = _one_way(x.flip(1), p[own], q[own], gamma[own], torch.zeros_like(start), taps)
        out = out + flipped.flip(1)
    return out.to(dtype), last


def _one_way(
    x: Tensor, p: Tensor, q: Tensor, gamma: Tensor, state: Tensor, taps: int
) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(x.shape[1]):
        state = q * state + p * x[:, t, :, None]  # [B, D, N]
        if t >= taps:
            state = state - q**taps * p * x[:, t - taps, :, None]
        outputs.append((gamma * state).sum(-1))
    return (torch.stack(outputs, 1) if outputs else x), state
