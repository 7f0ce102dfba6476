"""What the kernels keep of a forward for its backward, and room for it.

Shapes: B batch, H heads, X query and Y key blocks, Z cells of keys, g salient keys.
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

    Padding takes no part, nor do salient keys.

    Attributes:
        query: of blocks, float32 [B, H, X, D].
        key: of cells, float32 [B, H, Z, D].
        value: float32 [B, H, Z, Dv]; holds nothing in mode "sparse", where nobody needs it.
        query_counts: int32 [B, X].
        key_counts: int32 [B, Z]; [B, H, Z] if there are salient keys, which differ among heads.
        salient: the keys that every query sees exactly, int64 [B, H, g]; -1 is none.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_counts: Tensor
    key_counts: Tensor
    salient: Tensor

    @property
    def heads_sharing(self) -> int:
        """How many heads share counts of keys, as kernels are told."""
        return 1 if self.salient.shape[-1] else self.query.shape[1]

    def at(self, part: tuple[slice, slice]) -> MeansWithValues:
        """Those of some batch rows and heads."""
        query, key, value, query_counts, key_counts, salient = self
        own_counts = key_counts[part if key_counts.dim() == 3 else part[0]]
        means = query[part], key[part], value[part]
        return MeansWithValues(*means, query_counts[part[0]], own_counts, salient[part])


def empty_means(
    query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any]
) -> MeansWithValues:
    """Room for means and counts of [B, H, N, C] tensors."""
    batch, heads = query.shape[:2]
    cell_size, asked = options["coarse_key_size"] or options["block_size"], options["salient_keys"]
    blocks = block_count(query.shape[-2], options["block_size"])
    cells = block_count(key.shape[-2], cell_size)
    key_counts = (batch, heads, cells) if asked else (batch, cells)
    return MeansWithValues(
        query.new_empty(batch, heads, blocks, query.shape[-1], dtype=torch.float32),
        key.new_empty(batch, heads, cells, key.shape[-1], dtype=torch.float32),
        value.new_empty(batch, heads, cells, value.shape[-1], dtype=torch.float32),
        query.new_empty(batch, blocks, dtype=torch.int32),
        key.new_empty(key_counts, dtype=torch.int32),
        key.new_empty(batch, heads, asked, dtype=torch.int64),
    )


class Kept(NamedTuple):
    """What a backward needs beside output and log-sum-exp.

    Attributes:
        chosen: the pairs that are exact, bool [B, H, X, Y].
        coarse_lse: float32 [B, H, X].
        query: float32 [B, H, X, D], as in `MeansWithValues`; so are the others.
        key: float32 [B, H, Z, D].
        value: float32 [B, H, Z, Dv].
        query_counts: int32 [B, X].
        key_counts: int32 [B, Z] or [B, H, Z].
        salient: int64 [B, H, g].
    """

    chosen: Tensor
    coarse_lse: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    query_counts: Tensor
    key_counts: Tensor
    salient: Tensor

    @property
    def means(self) -> MeansWithValues:
        """Those of blocks and cells."""
        return MeansWithValues(*self[2:])


def empty_kept(query: Tensor, key: Tensor, value: Tensor, options: Mapping[str, Any]) -> Kept:
    """Room for all of it, of [B, H, N, C] tensors."""
    size = options["block_size"]
    return Kept(
        empty_choice(query, key, size),
        empty_coarse_lse(query, size),
        *empty_means(query, key, value, options),
    )
