"""A plugin as a third party writes it: attention that averages the values."""

import torch
from torch import Tensor, nn

from mra_plugin.registry import AttentionBackend, hookimpl


class MeanAttention(nn.Module):
    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        if key_padding_mask is None:
            key_padding_mask = key.new_ones(key.shape[0], key.shape[2], dtype=torch.bool)
        real = key_padding_mask[:, None, :, None]
        mean = (value * real).sum(2, keepdim=True) / real.sum(2, keepdim=True).clamp(min=1)
        output = self.gain * mean.expand(-1, -1, query.shape[2], -1)
        return (
            output if query_padding_mask is None else output * query_padding_mask[:, None, :, None]
        )


@hookimpl
def efficient_attention_backends() -> list[AttentionBackend]:
    return [AttentionBackend(name="mean", build=MeanAttention, summary="averages the values")]
