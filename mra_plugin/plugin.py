"""The plugin: offers ``"mra"``, ``"nystrom"`` and ``"ulysses"`` to the registry."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

from torch import Tensor

from mra_plugin.backends.nystrom import NystromAttention
from mra_plugin.ops import MRAOptions, mra_attention, mra_attention_weights
from mra_plugin.ops.api import Implementation
from mra_plugin.ops.options import ApproxMode, Selection
from mra_plugin.parallel import ulysses
from mra_plugin.registry import AttentionBackend, hookimpl


class MRAAttention:
    """MRA attention with its options chosen."""

    def __init__(
        self,
        *,
        block_size: int = 32,
        block_per_row: int = 4,
        num_blocks: int | None = None,
        approx_mode: ApproxMode = "full",
        initial_prior_first_n_blocks: int = 0,
        initial_prior_diagonal_n_blocks: int = 0,
        selection: Selection = "global",
        impl: Implementation = "auto",
    ) -> None:
        """Checks the options, which `mra_plugin.ops.mra_attention` explains.

        Raises:
            TypeError: an option has the wrong type.
            ValueError: an option has a wrong value.
        """
        if impl not in get_args(Implementation):
            raise ValueError(f"impl must be one of {get_args(Implementation)}, got {impl!r}")
        options = MRAOptions(
            block_size=block_size,
            block_per_row=block_per_row,
            num_blocks=num_blocks,
            approx_mode=approx_mode,
            initial_prior_first_n_blocks=initial_prior_first_n_blocks,
            initial_prior_diagonal_n_blocks=initial_prior_diagonal_n_blocks,
            selection=selection,
        )
        self.options = asdict(options)
        self.impl: Implementation = impl

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


@hookimpl
def efficient_attention_backends() -> list[AttentionBackend]:
    """Offers MRA attention, Nyström attention, and either across processes."""
    return [
        AttentionBackend(
            name="mra",
            build=MRAAttention,
            summary="MRA: exact in the blocks that matter, coarse elsewhere",
        ),
        AttentionBackend(
            name="nystrom",
            build=NystromAttention,
            summary="Nyström: by way of landmarks, the means of segments",
        ),
        AttentionBackend(
            name=ulysses.NAME,
            build=ulysses.UlyssesAttention,
            summary="any of the others, on sequences that are split among processes",
            why_unavailable=ulysses.why_unavailable,
        ),
    ]
