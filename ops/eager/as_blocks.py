"""Tensors seen as blocks of tokens, to be read and to be filled.

Shapes: B' batch rows and H' heads of a part, G = B'·H', N tokens in Y blocks of b, W channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..blocks import block_count
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

    def cover(self, rows: Tensor, counts: Tensor, padding_mask: Tensor | None) -> None:
        """Hands each block's row to its real tokens in equal parts, and 0 to all others.

        Args:
            rows: [B', H', Y, D].
            counts: real tokens per block, [B', Y].
            padding_mask: bool [B', N] or None.
        """
        assert self._empty  # it writes to every token, which spares zeroing them first
        self._empty = False
        blocks, size, width = self.blocks.shape
        heads, channels = rows.shape[1], rows.shape[-1]
        share = rows / counts.clamp(min=1)[:, None, :, None]
        share = torch.nn.functional.pad(share, (0, width - channels)).view(blocks, 1, width)
        self.blocks.copy_(share.expand(-1, size, -1))
        if padding_mask is not None:
            tail = counts.shape[-1] * size - padding_mask.shape[-1]
            padding = ~torch.nn.functional.pad(padding_mask, (0, tail))
            whole = self.blocks.view(len(padding), heads, padding.shape[-1], width)
            whole.masked_fill_(padding[:, None, :, None], 0)

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
