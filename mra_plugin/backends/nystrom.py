"""Nyström attention as a backend of the registry."""

from __future__ import annotations

from torch import Tensor, nn

from mra_plugin.ops import nystrom_attention, nystrom_attention_weights
from mra_plugin.ops.checks import check_integer
from mra_plugin.ops.nystrom import PinvStart, check_nystrom_options


class NystromAttention(nn.Module):
    """Nyström attention with its options chosen, and with Nyströmformer's convolution if asked for.

    The convolution over the values, one filter per head, is the only part with weights.
    """

    def __init__(
        self,
        *,
        num_landmarks: int = 64,
        pinv_iterations: int = 6,
        pinv_start: PinvStart = "sequence",
        conv_kernel_size: int | None = None,
        num_heads: int | None = None,
    ) -> None:
        """Checks the options.

        Args:
            num_landmarks: as in `mra_plugin.ops.nystrom_attention`.
            pinv_iterations: likewise.
            pinv_start: likewise.
            conv_kernel_size: tokens that a filter spans, odd; None leaves the convolution out.
            num_heads: H of the inputs; needed for the convolution, and for nothing else.

        Raises:
            TypeError: an option has the wrong type.
            ValueError: an option has a wrong value.
        """
        super().__init__()
        check_nystrom_options(num_landmarks, pinv_iterations, pinv_start)
        self.num_landmarks = num_landmarks
        self.pinv_iterations = pinv_iterations
        self.pinv_start: PinvStart = pinv_start
        self.conv: nn.Conv2d | None = None
        if conv_kernel_size is None:
            if num_heads is not None:
                raise ValueError(f"num_heads={num_heads} needs conv_kernel_size as well")
            return
        check_integer("conv_kernel_size", conv_kernel_size, least=1)
        if conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size must be odd, got {conv_kernel_size}")
        check_integer("num_heads", num_heads, least=1)
        assert num_heads is not None
        self.conv = nn.Conv2d(
            num_heads,
            num_heads,
            (conv_kernel_size, 1),
            padding=(conv_kernel_size // 2, 0),
            groups=num_heads,
            bias=False,
        )

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
        """Attends; shapes and masks as in `mra_plugin.registry.Attention`.

        Raises:
            ValueError: with the convolution, queries and values differ in length, or there are
                not ``num_heads`` heads.
        """
        out = nystrom_attention(
            query,
            key,
            value,
            key_padding_mask,
            query_padding_mask,
            num_landmarks=self.num_landmarks,
            pinv_iterations=self.pinv_iterations,
            pinv_start=self.pinv_start,
            scale=scale,
        )
        if self.conv is None:
            return out
        if value.shape[2] != query.shape[2]:
            raise ValueError(
                f"value must have the query's length {query.shape[2]} for the convolution, "
                f"got shape {tuple(value.shape)}"
            )
        if value.shape[1] != self.conv.in_channels:
            raise ValueError(
                f"value must have {self.conv.in_channels} heads for the convolution, "
                f"got shape {tuple(value.shape)}"
            )
        out = out + convolve_values(self.conv, value, key_padding_mask)
        if query_padding_mask is None:
            return out
        return out.masked_fill(~query_padding_mask[:, None, :, None], 0)

    def weights(
        self,
        query: Tensor,
        key: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """The dense matrix [B, H, Nq, Nk] of the attention, without the convolution."""
        return nystrom_attention_weights(
            query,
            key,
            key_padding_mask,
            query_padding_mask,
            num_landmarks=self.num_landmarks,
            pinv_iterations=self.pinv_iterations,
            pinv_start=self.pinv_start,
            scale=scale,
        )

    def extra_repr(self) -> str:
        """Shows the options that the convolution does not."""
        return f"num_landmarks={self.num_landmarks}, pinv_iterations={self.pinv_iterations}"


def convolve_values(conv: nn.Module, value: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Nyströmformer's convolution over values [B, H, N, Dv], with nothing at padded positions.

    Zeros are what the convolution sees beyond both ends, so padding at an end is as good as none.
    """
    if padding_mask is not None:
        value = value.masked_fill(~padding_mask[:, None, :, None], 0)
    out: Tensor = conv(value)
    return out
