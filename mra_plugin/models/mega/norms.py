"""Norms over the channels of a token, or over tokens, and dropout of whole channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .configuration import MegaConfig

EPSILON = 1e-5


class MegaScaleNorm(nn.Module):
    """Scales a token to a root mean square of one learned number."""

    scalar: nn.Parameter | None

    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.register_parameter("scalar", nn.Parameter(torch.ones(1)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to the same."""
        return _by_root_mean_square(x, self.scalar)


class MegaRMSNorm(nn.Module):
    """Scales a token to a root mean square of one, then each channel by a learned number."""

    weight: nn.Parameter | None

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to the same."""
        normed = _by_root_mean_square(x)
        return normed if self.weight is None else normed * self.weight


class MegaSequenceNorm(nn.Module):
    """The norm that a config names, under the name that checkpoints hold it by."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        size, affine = config.hidden_size, config.norm_affine
        kind = config.normalization_type
        self.over_tokens = kind in ("batchnorm", "syncbatchnorm")
        self.norm: nn.Module
        if kind == "scalenorm":
            self.norm = MegaScaleNorm(affine)
        elif kind == "rmsnorm":
            self.norm = MegaRMSNorm(size, affine)
        elif kind == "layernorm":
            self.norm = nn.LayerNorm(size, EPSILON, elementwise_affine=affine)
        else:
            of_kind = nn.BatchNorm1d if kind == "batchnorm" else nn.SyncBatchNorm
            self.norm = of_kind(size, EPSILON, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] to the same."""
        out: Tensor
        if not self.over_tokens:
            out = self.norm(x)
            return out
        out = self.norm(x.flatten(0, 1))
        return out.view_as(x)


class MegaDropout(nn.Dropout):
    """Dropout of single numbers, or of a channel at all tokens of a sequence alike."""

    def __init__(self, p: float, by_feature: bool) -> None:
        super().__init__(p)
        self.by_feature = by_feature

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, channels] to the same."""
        if not self.by_feature:
            return super().forward(x)
        return x * super().forward(x.new_ones(x.shape[0], 1, x.shape[-1]))

    def extra_repr(self) -> str:
        """Shows the options."""
        return f"p={self.p}, by_feature={self.by_feature}"


def _by_root_mean_square(x: Tensor, factor: Tensor | None = None) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPSILON)
    if factor is not None:
        scale = scale * factor  # not behind: a product keeps what goes in
    return (wide * scale).to(x.dtype)
