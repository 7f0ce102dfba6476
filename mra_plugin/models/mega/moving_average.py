"""The moving average that every channel of a layer goes through."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mra_plugin.ops.ema import damped_ema

if TYPE_CHECKING:
    from .configuration import MegaConfig


class MegaMultiDimensionDampedEma(nn.Module):
    """Damped exponential moving averages of each channel, summed up, with the channel's own value.

    Mega, section 3.1. Nothing is kept between calls.
    """

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        size, averages = config.hidden_size, config.ema_projection_size
        rows = size * (2 if config.bidirectional else 1)
        self.bidirectional = config.bidirectional
        self.truncation = config.truncation
        self.scale = 1 / math.sqrt(averages)
        self.damping_factor = nn.Parameter(torch.empty(rows, averages, 1))
        self.decay_factor = nn.Parameter(torch.empty(rows, averages, 1))
        self.ema_expansion_matrix = nn.Parameter(torch.empty(rows, averages, 1))
        self.kernel_projection_matrix = nn.Parameter(torch.empty(rows, averages))
        self.residual_weight = nn.Parameter(torch.empty(size))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        past: Tensor | None = None,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Averages.

        Args:
            x: [B, L, D].
            mask: bool [B, L], True = a real token. Others add nothing to any average.
            past: what a call before gave, of the tokens before these.
            keep: whether to give what the next call needs.

        Returns:
            [B, L, D] before the activation, silu, and what the next call needs: the averages
            [B, D, N] in single precision at least, or with truncation the last inputs,
            [B, at most truncation - 1, D].
        """
        # In 16 bits 1 - p a is 1 for slow averages.
        wide = torch.promote_types(self.decay_factor.dtype, torch.float32)
        damping = torch.sigmoid(self.damping_factor.to(wide)).squeeze(-1)
        decay = 1 - damping * torch.sigmoid(self.decay_factor.to(wide)).squeeze(-1)
        weight = damping * self.ema_expansion_matrix.to(wide).squeeze(-1)
        average: Callable[..., Any] = partial(
            damped_ema,
            p=weight,
            q=decay,
            gamma=self.kernel_projection_matrix.to(wide),
            scale=self.scale,
            bidirectional=self.bidirectional,
        )
        state: Tensor | None = None
        if self.truncation is None:
            averaged = average(x, state=past, mask=mask, return_state=keep)
            if keep:
                averaged, state = averaged
        else:
            # Averages of a window are no recurrence, so the window itself goes on.
            inputs = x if mask is None else x.masked_fill(~mask[..., None], 0)
            before = 0 if past is None else past.shape[1]
            inputs = inputs if past is None else torch.cat([past.to(x.dtype), inputs], 1)
            averaged = average(inputs, truncation=self.truncation)[:, before:]
            if keep:
                state = inputs[:, max(inputs.shape[1] - self.truncation + 1, 0) :]
        return averaged + x * self.residual_weight, state
