"""What the kernels keep of a forward for its backward, and room for it.

Shapes: B batch, H heads, X query and Y key blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..blocks import block_count
from ..problem import empty_choice, empty_coarse_lse


class MeansWithValues(NamedTuple):
    """Means of the real tokens of each block, and how many these are.

    Attributes:
        query: float32 [B, H, X, D].
        key: float32 [B, H, Y, D].
        value: float32 [B, H, Y, Dv]; holds nothing in mode "sparse", where nobody needs it.
        query_counts: int32 [B, X].
        key_counts: int32 [B, Y].
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_counts: Tensor
    key_counts: Tensor


def empty_means(query: Tensor, key: Tensor, value: Tensor, block_size: int) -> MeansWithValues:
    """Room for means and counts of [B, H, N, C] tensors."""
    means, counts = [], []
    for x in (query, key, value):
        batch, heads, length, channels = x.shape
        blocks = block_count(length, block_size)
        means.append(x.new_empty(batch, heads, blocks, channels, dtype=torch.float32))
        counts.append(x.new_empty(batch, blocks, dtype=torch.int32))
    return MeansWithValues(*means, *counts[:2])


class Kept(NamedTuple):
    """What a backward needs beside output and log-sum-exp.

    Attributes:
        chosen: the pairs that are exact, bool [B, H, X, Y].
        coarse_lse: float32 [B, H, X].
        query: float32 [B, H, X, D], as in `MeansWithValues`; so are the others.
        key: float32 [B, H, Y, D].
        value: float32 [B, H, Y, Dv].
        query_counts: int32 [B, X].
        key_counts: int32 [B, Y].
    """

    chosen: Tensor
    coarse_lse: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    query_counts: Tensor
    key_counts: Tensor

    @property
    def means(self) -> MeansWithValues:
        """Those of the blocks."""
        return MeansWithValues(*self[2:])


def empty_kept(query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any]) -> Kept:
    """Room for all of it, of [B, H, N, C] tensors."""
    size = options["block_size"]
    return Kept(
        empty_choice(query, key, size),
        empty_coarse_lse(query, size),
        *empty_means(query, key, value, size),
    )
