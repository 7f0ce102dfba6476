"""A call in one object, and how its tokens are laid out for products over channels.

Shapes: B batch, L tokens, D channels, N averages per channel, kD rows of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """What a call is about, in both directions."""

    x: Tensor  # [B, L, D]
    p: Tensor  # [kD, N], as are q and gamma, all in the type that is computed in
    q: Tensor
    gamma: Tensor  # the scale multiplied in
    mask: Tensor | None  # bool [B, L]
    state: Tensor | None  # [B, D, N]
    truncation: int | None
    bidirectional: bool

    @property
    def dtype(self) -> torch.dtype:
        """The type that everything is computed in."""
        return self.p.dtype

    @property
    def taps(self) -> int:
        """T, how many entries of the kernel are used."""
        length = self.x.shape[1]
        return length if self.truncation is None else min(self.truncation, length)

    @property
    def weight(self) -> Tensor:
        """What each average has in the kernel, [kD, N]: kernel[j] = Σ_n weight q^j."""
        return self.p * self.gamma

    @property
    def directions(self) -> tuple[slice, ...]:
        """The rows of the parameters that go forwards, and those that go backwards."""
        channels = self.x.shape[-1]
        both = (slice(0, channels), slice(channels, 2 * channels))
        return both if self.bidirectional else both[:1]

    def tokens(self) -> Tensor:
        """In the type that is computed in, 0 at padding; x itself where that changes nothing."""
        x = self.x.to(self.dtype)
        return x if self.mask is None else x.masked_fill(~self.mask[..., None], 0)


def channels_first(x: Tensor) -> Tensor:
    """[B, L, D] as a dense [B, D, L]."""
    if x.device.type != "cpu":
        return x.transpose(1, 2).contiguous()
    # PyTorch transposes matrices by blocks, and tensors of three dimensions number by number.
    out = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    for row, own in zip(out, x.contiguous(), strict=True):
        row.copy_(own.t())
    return out
