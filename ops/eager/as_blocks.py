"""Tensors seen as blocks of tokens, to be read and to be filled.

Shapes: B' batch rows and H' heads of a part, G = B'·H', N tokens in Y blocks of b, W channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..blocks import block_count, by_head
from .part import Part


def as_blocks(x: Tensor, part: Part) -> Tensor:
    """[B', H', N, D] as [G·Y, b, W]: a view where nothing is missing, else a copy with zeros."""
    length, channels = x.shape[-2:]
    size, width = part.block_size, part.width
    missing = (0, width - channels, 0, block_count(length, size) * size - length)
    if any(missing):
        x = torch.nn.functional.pad(x, missing)
    blocks = x.shape[0] * x.shape[1] * block_count(length, size)
    return x.reshape(blocks, size, width)


def as_rows(x: Tensor, part: Part, fill: float) -> Tensor:
    """[B', H', N] as [G·Y, b], with ``fill`` behind the last token."""
    size, blocks = part.block_size, block_count(x.shape[-1], part.block_size)
    x = torch.nn.functional.pad(x, (0, blocks * size - x.shape[-1]), value=fill)
    return x.reshape(x.shape[0] * x.shape[1] * blocks, size)


def real_queries(part: Part) -> Tensor:
    """The queries [B', H', Nq, D], with 0 for those that take no part."""
    if part.query_padding_mask is None:
        return part.query
    # Whatever stands at padding: 0 times nan would be nan.
    return part.query.masked_fill(~part.query_padding_mask[:, None, :, None], 0)


class Sink:
    """Blocks [G·Y, b, W] to be filled: the result's own memory where its shape allows that."""

    def __init__(self, result: Tensor, part: Part) -> None:
        """Makes room for a result [B', H', N, D], contiguous; what is in it means nothing yet."""
        batch, heads, length, channels = result.shape
        size, width, dtype = part.block_size, part.width, part.dtype
        blocks = block_count(length, size)
        self._result = result
        self._direct = length == blocks * size and channels == width and result.dtype == dtype
        self._empty = True
        shape = (batch * heads * blocks, size, width)
        self.blocks = result.view(shape) if self._direct else result.new_empty(shape, dtype=dtype)

    def zeroed(self) -> Tensor:
        """The blocks, all 0."""
        self._empty = False
        return self.blocks.zero_()

    def cover(self, rows: Tensor, size: int, counts: Tensor, counted: Tensor | None) -> None:
        """Hands each row to the tokens that it is the mean of in equal parts, and 0 to all others.

        Args:
            rows: [B', H', Z, D], of blocks or of cells.
            size: tokens that a row stands for, whether they count or not.
            counts: those that count, [B', Z] or [B', 1 or H', Z].
            counted: which these are, bool [B', N] or [B', H', N]; None means all.
        """
        assert self._empty  # it writes to every token, which spares zeroing them first
        self._empty = False
        batch, heads, length, channels = self._result.shape
        _, block_size, width = self.blocks.shape
        tokens = block_count(length, block_size) * block_size
        share = rows / by_head(counts).clamp(min=1)[..., None]
        missing = (0, width - channels, 0, tokens // size - rows.shape[-2])
        if any(missing):
            share = torch.nn.functional.pad(share, missing)
        whole = self.blocks.view(batch, heads, tokens // size, size, width)
        whole.copy_(share[..., None, :].expand_as(whole))
        if counted is not None:
            others = ~torch.nn.functional.pad(by_head(counted), (0, tokens - length))
            self.blocks.view(batch, heads, tokens, width).masked_fill_(others[..., None], 0)

    def tokens(self) -> Tensor:
        """The blocks as tokens of each head, [G, Y·b, W], to add to."""
        if self._empty:
            self.zeroed()
        heads = self._result.shape[0] * self._result.shape[1]
        return self.blocks.view(heads, -1, self.blocks.shape[-1])

    def add(self, index: Tensor, blocks: Tensor) -> None:
        """Adds ``blocks`` [n, b, W] to those at ``index`` [n]."""
        if self._empty:
            self.zeroed()
        self.blocks.index_add_(0, index, blocks)

    def finish(self) -> None:
        """Puts what was collected into the result."""
        if self._empty:
            self.zeroed()
        if not self._direct:
            batch, heads, length, channels = self._result.shape
            _, size, width = self.blocks.shape
            whole = self.blocks.view(batch, heads, block_count(length, size) * size, width)
            self._result.copy_(whole[:, :, :length, :channels])
