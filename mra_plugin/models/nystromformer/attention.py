"""The attention part of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from mra_plugin.adapters.transformers.families.nystromformer_layer import attend

if TYPE_CHECKING:
    from .configuration import NystromformerConfig


class NystromformerSelfAttention(nn.Module):
    """Projects to heads, attends as the config says, and adds a convolution of the values."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__()
        self.config = config
        self.num_attention_heads = config.num_attention_heads
        self.attention_head_size = config.hidden_size // config.num_attention_heads
        self.conv_kernel_size = config.conv_kernel_size
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        if config.conv_kernel_size is not None:
            heads = config.num_attention_heads
            self.conv = nn.Conv2d(
                heads,
                heads,
                (config.conv_kernel_size, 1),
                padding=(config.conv_kernel_size // 2, 0),
                groups=heads,
                bias=False,
            )

    def forward(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends.

        Args:
            hidden_states: [B, N, hidden].
            padding_mask: bool [B, N], True = a real token.
            output_attentions: whether the matrices are wanted.

        Returns:
            Output [B, N, hidden], and the matrices [B, H, N, N] that the attention stood for, the
            convolution aside, or None.
        """
        return attend(self, hidden_states, padding_mask, output_attentions)
