"""The fine term: exact attention over the chosen blocks, by small tiles that fit in cache.

Query blocks that chose equally many key blocks share tiles, each a batched attention over gathered
key blocks.
Shapes: G heads of the part, b tokens per block, X query and Y key blocks, W channels; a tile has T
query blocks with m key blocks each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..blocks import block_count, count_tokens
from .as_blocks import as_blocks, real_queries
from .part import Part
from .terms import Gradients, Whole
from .tiles import Layout, Tile, lay_out, tile_backward, tile_forward

# Bytes of keys and values gathered for one tile. On a CPU they stay in the caches that the cores
# reach without a trip to memory, and no fewer: after each step threads wait for the slowest, which
# takes long on a busy machine. Other devices want fewer, larger calls.
_TILE_BYTES_CPU = 16 << 20
_TILE_BYTES = 256 << 20


def attend(part: Part, out: Tensor, lse: Tensor) -> Tensor:
    """See `terms`; has to be the first term, as it writes over ``out``, which is 0."""
    queries = as_blocks(part.query, part)
    layout = _lay_out(part)
    lses = []
    for tile in _gathered(part, layout):
        tile_out, tile_lse = tile_forward(
            queries.index_select(0, tile.rows).to(part.dtype),
            tile.keys,
            tile.values,
            tile.bias,
            part.scale,
        )
        out.index_copy_(0, tile.rows, tile_out)
        lses.append(tile_lse)
    return lse.index_copy_(0, layout.rows, torch.cat(lses)) if lses else lse


def gradients(part: Part, whole: Whole, grads: Gradients) -> None:
    """See `terms`."""
    dtype = part.dtype
    queries = as_blocks(real_queries(part), part)
    for tile in _gathered(part, _lay_out(part)):
        rows = tile.rows
        grad_query, grad_key, grad_value = tile_backward(
            whole.grad_out.index_select(0, rows).to(dtype),
            None if whole.grad_lse is None else whole.grad_lse.index_select(0, rows),
            queries.index_select(0, rows).to(dtype),
            tile.keys,
            tile.values,
            whole.out.index_select(0, rows).to(dtype),
            whole.lse.index_select(0, rows),
            tile.bias,
            part.scale,
        )
        grads.query.add(rows, grad_query)
        grads.key.add(tile.columns, grad_key.reshape(-1, *queries.shape[1:]))
        grads.value.add(tile.columns, grad_value.reshape(-1, *queries.shape[1:]))


def _lay_out(part: Part) -> Layout:
    """Cuts the chosen blocks into tiles."""
    on_cpu = part.query.device.type == "cpu"
    channels = part.key.shape[-1] + part.value.shape[-1]
    block_bytes = part.block_size * channels * part.dtype.itemsize
    heads = part.query.shape[1]
    partial = (_key_counts(part) < part.block_size)[:, None].expand(-1, heads, -1)
    return lay_out(
        part.plan.chosen.flatten(0, 1),
        partial.flatten(0, 1),
        pairs_per_tile=(_TILE_BYTES_CPU if on_cpu else _TILE_BYTES) // block_bytes,
        least_rows=torch.get_num_threads() if on_cpu else 1,
    )


def _key_counts(part: Part) -> Tensor:
    """Real keys of each block, [B', Y]; salient ones are attended to with their block."""
    batch, _, length, _ = part.key.shape
    return count_tokens(part.key_padding_mask, batch, length, part.block_size, part.key.device)


class _Gathered(NamedTuple):
    """What a tile works on.

    Attributes:
        rows: its query blocks, [T].
        columns: the key blocks that these chose, [T·m].
        keys: [T, m·b, W].
        values: [T, m·b, W].
        bias: 0 for a real key and -inf for any other, [T, 1, m·b], or None if all are real.
    """

    rows: Tensor
    columns: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor | None


def _gathered(part: Part, layout: Layout) -> Iterator[_Gathered]:
    """Tile after tile; the next one's keys and values take the memory of the last one's."""
    keys = _Gatherer(part.key, part, layout)
    values = _Gatherer(part.value, part, layout)
    biases = _key_biases(part) if any(tile.masked for tile in layout.tiles) else None
    for tile in layout.tiles:
        rows, columns = layout.rows[tile.start : tile.stop], layout.columns[tile.pairs]
        gathered = _Gathered(rows, columns, keys(columns, tile), values(columns, tile), None)
        if biases is not None and tile.masked:
            bias = biases.index_select(0, columns).view(tile.rows, 1, -1)
            # Whatever stands at padding: 0 times nan would be nan.
            padding = bias.isinf().transpose(1, 2)  # [T, m·b, 1]
            gathered.keys.masked_fill_(padding, 0)
            gathered.values.masked_fill_(padding, 0)
            gathered = gathered._replace(bias=bias)
        yield gathered


def _key_biases(part: Part) -> Tensor:
    """0 for a real key, -inf for any other: [G·Y, b]."""
    batch, heads, length, _ = part.key.shape
    blocks = block_count(length, part.block_size)
    real = part.key_padding_mask
    if real is None:
        real = torch.ones(batch, length, dtype=torch.bool, device=part.key.device)
    real = torch.nn.functional.pad(real, (0, blocks * part.block_size - length))
    bias = torch.zeros_like(real, dtype=part.dtype)
    bias.masked_fill_(~real, float("-inf"))
    bias = torch.unflatten(bias, -1, (blocks, part.block_size))
    return bias[:, None].expand(-1, heads, -1, -1).reshape(-1, part.block_size)


class _Gatherer:
    """Copies the key blocks of a tile next to each other, always into the same memory."""

    def __init__(self, x: Tensor, part: Part, layout: Layout) -> None:
        self._blocks = as_blocks(x, part).flatten(1)  # [G·Y, b·W]
        self._buffer = self._blocks.new_empty(layout.most_pairs, self._blocks.shape[1])
        self._width = part.width
        self._dtype = part.dtype

    def __call__(self, columns: Tensor, tile: Tile) -> Tensor:
        """Blocks ``columns`` [T·m] as [T, m·b, W]."""
        out = self._buffer[: columns.shape[0]]
        torch.index_select(self._blocks, 0, columns, out=out)
        return out.to(self._dtype).view(tile.rows, -1, self._width)
