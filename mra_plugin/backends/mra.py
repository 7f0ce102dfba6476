"""MRA attention as a backend of the registry."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from mra_plugin.ops import MRAOptions, mra_attention, mra_attention_weights
from mra_plugin.ops.implementations import ImplementationName, check_known, check_name
from mra_plugin.ops.options import lists_options
from mra_plugin.ops.presets import expand_preset


class MRAAttention:
    """MRA attention with its options chosen."""

    @lists_options
    def __init__(
        self, *, impl: ImplementationName = "auto", preset: str | None = None, **options: Any
    ) -> None:
        """Checks the options.

        Args:
            impl: which implementation computes it, as in `mra_plugin.ops.mra_attention`.
            preset: one of `mra_plugin.ops.PRESETS`, which stands for all options that are not
                given; None stands for their defaults, the paper's.
            **options: fields of `mra_plugin.ops.MRAOptions`.

        Raises:
            TypeError: an option is unknown or has the wrong type.
            ValueError: there is no such preset, or an option has a wrong value.
        """
        check_name(impl)
        options = expand_preset({"preset": preset, **options})
        chosen = MRAOptions.given_to("MRAAttention", options)
        check_known(impl, chosen)
        self.options = asdict(chosen)
        self.impl: ImplementationName = impl

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends; shapes and masks as in `mra_plugin.registry.Attention`."""
        out: Tensor = mra_attention(
            query,
            key,
            value,
            key_padding_mask,
            query_padding_mask,
            scale=scale,
            impl=self.impl,
            **self.options,
        )
        return out

    def with_exact_keys(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        exact_key: Tensor,
        exact_value: Tensor,
        key_padding_mask: Tensor | None = None,
        exact_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends, and exactly to further keys; as in `AttentionWithExactKeys` of the registry.

        Both are terms of one softmax, and meet by their log-sum-exps.
        """
        out, lse = mra_attention(
            query,
            key,
            value,
            key_padding_mask,
            scale=scale,
            return_lse=True,
            impl=self.impl,
            **self.options,
        )
        more, more_lse = mra_attention(
            query,
            exact_key,
            exact_value,
            exact_padding_mask,
            scale=scale,
            return_lse=True,
            impl=self.impl,
            **{**self.options, "exact_up_to": exact_key.shape[2]},
        )
        # A sequence may have none of either kind.
        ahead = (lse - more_lse).masked_fill(more_lse == -math.inf, math.inf)
        return torch.lerp(more, out, ahead.sigmoid()[..., None].to(out.dtype))

    def weights(
        self,
        query: Tensor,
        key: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """The dense matrix [B, H, Nq, Nk] that the attention stands for."""
        return mra_attention_weights(
            query, key, key_padding_mask, query_padding_mask, scale=scale, **self.options
        )

    def __repr__(self) -> str:
        """Shows the options."""
        options = {**self.options, "impl": self.impl}
        return f"MRAAttention({', '.join(f'{name}={value!r}' for name, value in options.items())})"
