"""A call in one object, as implementations hand it around, and room for its results."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .blocks import accumulation_dtype, block_count
from .options import MRAOptions


@dataclass(frozen=True)
class Problem:
    """What a call is about, in both directions."""

    query: Tensor  # [B, H, Nq, D]
    key: Tensor  # [B, H, Nk, D]
    value: Tensor  # [B, H, Nk, Dv]
    key_padding_mask: Tensor | None  # bool [B, Nk]
    query_padding_mask: Tensor | None  # bool [B, Nq]
    options: MRAOptions
    scale: float

    def rows(self, index: Tensor) -> Problem:
        """Some sequences of the batch."""
        key_mask, query_mask = (
            None if mask is None else mask[index]
            for mask in (self.key_padding_mask, self.query_padding_mask)
        )
        return replace(
            self,
            query=self.query[index],
            key=self.key[index],
            value=self.value[index],
            key_padding_mask=key_mask,
            query_padding_mask=query_mask,
        )

    @property
    def is_full(self) -> bool:
        """Whether what is not chosen is averaged, not dropped."""
        return self.options.approx_mode == "full"

    @property
    def serves_padding(self) -> bool:
        """Whether there may be queries at padding that are to be served.

        In self-attention the key mask says which these are; elsewhere all queries are real.
        """
        return (
            self.query_padding_mask is None
            and self.key_padding_mask is not None
            and self.query.shape[-2] == self.key.shape[-2]
        )

    @property
    def blocks_x(self) -> int:
        """X, the number of query blocks."""
        return block_count(self.query.shape[-2], self.options.block_size)

    @property
    def blocks_y(self) -> int:
        """Y, the number of key blocks."""
        return block_count(self.key.shape[-2], self.options.block_size)

    @property
    def short_blocks(self) -> int:
        """Key blocks of the longest sequence that may be exact as a whole; 0 if none can be."""
        length, most = self.key.shape[-2], self.options.exact_up_to
        if self.key_padding_mask is None and length > most:
            return 0
        return block_count(min(length, most), self.options.block_size)

    @property
    def capacity(self) -> int:
        """Upper bound of the pairs that a head can choose, padding being taken out."""
        budget = self.options.num_blocks or self.options.block_per_row * self.blocks_x
        short = self.short_blocks * self.blocks_x
        return min(max(budget, short), self.blocks_x * self.blocks_y)


def empty_output(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Room for the output [B, H, Nq, Dv] and the log-sum-exp [B, H, Nq]."""
    shape = query.shape[:-1]
    return (
        query.new_empty(*shape, value.shape[-1]),
        query.new_empty(shape, dtype=accumulation_dtype(query.dtype)),
    )


def empty_choice(query: Tensor, key: Tensor, block_size: int) -> Tensor:
    """Room for the chosen blocks, bool [B, H, X, Y]."""
    blocks = (block_count(x.shape[-2], block_size) for x in (query, key))
    return query.new_empty(*query.shape[:2], *blocks, dtype=torch.bool)


def empty_coarse_lse(query: Tensor, block_size: int) -> Tensor:
    """Room for the coarse scale's log-sum-exp, [B, H, X]."""
    blocks_x = block_count(query.shape[-2], block_size)
    return query.new_empty(*query.shape[:2], blocks_x, dtype=accumulation_dtype(query.dtype))


def empty_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the gradients of query, key and value, dense whatever their strides."""
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
