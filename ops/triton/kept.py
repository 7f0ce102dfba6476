"""What the kernels keep of a forward for its backward, and room for it.

Shapes: B batch, H heads, X query and Y key blocks, Z cells of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..blocks import block_count
from ..problem import empty_choice, empty_coarse_lse


class MeansWithValues(NamedTuple):
    """Means of the tokens of each block or cell, and of how many each was made.

    Attributes:
        query: of blocks, float32 [B, H, X, D].
        key: of cells, float32 [B, H, Z, D].
        value: float32 [B, H, Z, Dv]; holds nothing in mode "sparse", where nobody needs it.
        query_counts: int32 [B, X].
        key_counts: int32 [B, Z].
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_counts: Tensor
    key_counts: Tensor

    @property
    def heads_sharing(self) -> int:
        """How many heads share counts of keys, as kernels are told."""
        return self.query.shape[1]

    def at(self, part: tuple[slice, slice]) -> MeansWithValues:
        """Those of some batch rows and heads."""
        means = (x[part] for x in self[:3])
        return MeansWithValues(*means, *(x[part[0]] for x in self[3:]))


def empty_means(
    query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any]
) -> MeansWithValues:
    """Room for means and counts of [B, H, N, C] tensors."""
    means, counts = [], []
    block_size = options["block_size"]
    cell_size = options["coarse_key_size"] or block_size
    for x, size in ((query, block_size), (key, cell_size), (value, cell_size)):
        batch, heads, length, channels = x.shape
        blocks = block_count(length, size)
        means.append(x.new_empty(batch, heads, blocks, channels, dtype=torch.float32))
        counts.append(x.new_empty(batch, blocks, dtype=torch.int32))
    return MeansWithValues(*means, *counts[:2])


class Kept(NamedTuple):
    """What a backward needs beside output and log-sum-exp.

    Attributes:
        chosen: the pairs that are exact, bool [B, H, X, Y].
        coarse_lse: float32 [B, H, X].
        query: float32 [B, H, X, D], as in `MeansWithValues`; so are the others.
        key: float32 [B, H, Z, D].
        value: float32 [B, H, Z, Dv].
        query_counts: int32 [B, X].
        key_counts: int32 [B, Z].
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
        *empty_means(query, key, value, options),
    )
