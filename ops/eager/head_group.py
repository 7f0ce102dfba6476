"""Some heads of a call, forward and backward, by small tiles that fit in cache.

Nothing of size Nq x Nk is formed: query blocks that chose equally many key blocks share tiles,
each a batched attention over gathered key blocks. The two scales meet through their log-sum-exps,
forward and backward.

Shapes: G heads of the group (over batch rows B' and heads H'), b tokens per block, X query and Y
key blocks, W the wider of D and Dv.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..blocks import block_count
from ..coarse import coarse_attention, coarse_backward
from ..pooled import Pooled, pool_all
from ..problem import Problem
from .tiles import Layout, Tile, lay_out, tile_backward, tile_forward

# Bytes of keys and values gathered for one tile. On a CPU they stay in the caches that the cores
# reach without a trip to memory; other devices want fewer, larger calls.
_TILE_BYTES_CPU = 4 << 20
_TILE_BYTES = 256 << 20


@dataclass(frozen=True)
class HeadGroup:
    """Some batch rows and heads, with what both directions need to know of their blocks."""

    query: Tensor  # [B', H', Nq, D]
    key: Tensor  # [B', H', Nk, D]
    value: Tensor  # [B', H', Nk, Dv]
    key_padding_mask: Tensor | None  # bool [B', Nk]
    query_padding_mask: Tensor | None  # bool [B', Nq]
    pooled: Pooled
    block_size: int
    scale: float

    @classmethod
    def cut(cls, part: tuple[slice, slice], problem: Problem) -> HeadGroup:
        """Takes batch rows and heads ``part`` of a call, and pools them."""
        query, key, value = problem.query[part], problem.key[part], problem.value[part]
        key_mask = _padding(problem.key_padding_mask, part[0])
        query_mask = _padding(problem.query_padding_mask, part[0])
        size, scale = problem.options.block_size, problem.scale
        pooled = pool_all(query, key, value, key_mask, query_mask, size, scale)
        return cls(query, key, value, key_mask, query_mask, pooled, size, scale)

    def lay_out(self, chosen: Tensor) -> Layout:
        """Cuts chosen blocks, bool [B', H', X, Y], into tiles."""
        on_cpu = self.query.device.type == "cpu"
        width = self.key.shape[-1] + self.value.shape[-1]
        block_bytes = self.block_size * width * self.pooled.scores.element_size()
        heads = self.query.shape[1]
        partial = (self.pooled.key_counts < self.block_size)[:, None].expand(-1, heads, -1)
        return lay_out(
            chosen.flatten(0, 1),
            partial.flatten(0, 1),
            pairs_per_tile=(_TILE_BYTES_CPU if on_cpu else _TILE_BYTES) // block_bytes,
            least_rows=torch.get_num_threads() if on_cpu else 1,
        )

    def key_bias(self) -> Tensor:
        """0 for a real key, -inf for any other: [G·Y, b]."""
        batch, heads, length, _ = self.key.shape
        blocks = self.pooled.key_counts.shape[-1]
        real = self.key_padding_mask
        if real is None:
            real = torch.ones(batch, length, dtype=torch.bool, device=self.key.device)
        real = torch.nn.functional.pad(real, (0, blocks * self.block_size - length))
        bias = torch.zeros_like(real, dtype=self.pooled.scores.dtype)
        bias.masked_fill_(~real, float("-inf"))
        bias = torch.unflatten(bias, -1, (blocks, self.block_size))
        return bias[:, None].expand(-1, heads, -1, -1).reshape(-1, self.block_size)


def _padding(mask: Tensor | None, rows: slice) -> Tensor | None:
    """The rows' mask, or None if it masks nothing: callers often pass one that doesn't."""
    return None if mask is None or bool(mask[rows].all()) else mask[rows]


class _Gatherer:
    """Copies the key blocks of a tile next to each other, always into the same memory."""

    def __init__(self, x: Tensor, size: int, width: int, layout: Layout, dtype: torch.dtype):
        self.blocks = _as_blocks(x, size, width)  # [G·Y, b·W]
        self.buffer = self.blocks.new_empty(layout.most_pairs, size * width)
        self.width = width
        self.dtype = dtype

    def __call__(self, columns: Tensor, tile: Tile) -> Tensor:
        """Blocks ``columns`` [T·m] as [T, m·b, W]."""
        out = self.buffer[: columns.shape[0]]
        torch.index_select(self.blocks, 0, columns, out=out)
        return out.to(self.dtype).view(tile.rows, -1, self.width)


def _as_blocks(x: Tensor, block_size: int, width: int) -> Tensor:
    """[B', H', N, D] as [G·Y, b·W]: a view where nothing is missing, else a copy with zeros."""
    length, channels = x.shape[-2:]
    blocks = block_count(length, block_size)
    missing = (0, width - channels, 0, blocks * block_size - length)
    if any(missing):
        x = torch.nn.functional.pad(x, missing)
    return x.reshape(-1, block_size * width)


class _Sink:
    """Blocks [G·Y, b, W] to be filled: the result's own memory where its shape allows that."""

    def __init__(self, result: Tensor, block_size: int, width: int, dtype: torch.dtype) -> None:
        self.result = result  # [B', H', N, D], contiguous
        batch, heads, length, channels = result.shape
        blocks = block_count(length, block_size)
        self.direct = length == blocks * block_size and channels == width and result.dtype == dtype
        shape = (batch * heads * blocks, block_size, width)
        self.blocks = result.view(shape) if self.direct else result.new_empty(shape, dtype=dtype)

    def finish(self) -> None:
        if not self.direct:
            batch, heads, length, channels = self.result.shape
            whole = self.blocks.view(batch, heads, -1, self.blocks.shape[-1])
            self.result.copy_(whole[:, :, :length, :channels])


def forward(group: HeadGroup, chosen: Tensor, full: bool, out: Tensor, lse: Tensor) -> None:
    """Fills ``out`` [B', H', Nq, Dv] and ``lse`` [B', H', Nq]."""
    size, dtype = group.block_size, group.pooled.scores.dtype
    width = max(group.key.shape[-1], group.value.shape[-1])
    layout = group.lay_out(chosen)
    queries = _as_blocks(group.query, size, width).view(-1, size, width)
    keys = _Gatherer(group.key, size, width, layout, dtype)
    values = _Gatherer(group.value, size, width, layout, dtype)
    bias = group.key_bias() if any(tile.masked for tile in layout.tiles) else None
    outs = _Sink(out, size, width, dtype)
    outs.blocks.zero_()
    fine_lses = []
    for tile in layout.tiles:
        rows, columns = layout.rows[tile.start : tile.stop], layout.columns[tile.pairs]
        tile_out, tile_lse = tile_forward(
            queries.index_select(0, rows).to(dtype),
            keys(columns, tile),
            values(columns, tile),
            None if bias is None or not tile.masked else _tile_bias(bias, columns, tile),
            group.scale,
        )
        outs.blocks.index_copy_(0, rows, tile_out)
        fine_lses.append(tile_lse)
    lses = queries.new_full(queries.shape[:-1], float("-inf"), dtype=dtype)
    if fine_lses:
        lses.index_copy_(0, layout.rows, torch.cat(fine_lses))

    if full:
        probabilities, coarse_lse = coarse_attention(
            group.pooled.scores, group.pooled.key_counts, chosen
        )
        coarse_out = _as_blocks(torch.matmul(probabilities, group.pooled.value), 1, width)
        lses = _merge(outs.blocks, lses, coarse_out[:, None], coarse_lse.view(-1, 1))
    outs.finish()
    lse.copy_(lses.view(*lse.shape[:2], -1)[..., : lse.shape[-1]])
    if group.query_padding_mask is not None:
        padding = ~group.query_padding_mask[:, None]
        out.masked_fill_(padding[..., None], 0)
        lse.masked_fill_(padding, float("-inf"))


def backward(
    group: HeadGroup,
    chosen: Tensor,
    full: bool,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Fills ``grads``, the gradients of the group's query, key and value."""
    size, dtype = group.block_size, group.pooled.scores.dtype
    width = max(group.key.shape[-1], group.value.shape[-1])
    if group.query_padding_mask is not None:
        padding = ~group.query_padding_mask[:, None]
        grad_out = grad_out.masked_fill(padding[..., None], 0)
        grad_lse = None if grad_lse is None else grad_lse.masked_fill(padding, 0)
    # A query without output has no log-sum-exp; as +inf it weighs every key with 0.
    lse = lse.masked_fill(lse == float("-inf"), float("inf"))

    layout = group.lay_out(chosen)
    queries, outs, grad_outs = (
        _as_blocks(x, size, width).view(-1, size, width) for x in (group.query, out, grad_out)
    )
    lses = _as_rows(lse, size, float("inf"))
    grad_lses = None if grad_lse is None else _as_rows(grad_lse, size, 0.0)
    keys = _Gatherer(group.key, size, width, layout, dtype)
    values = _Gatherer(group.value, size, width, layout, dtype)
    bias = group.key_bias() if any(tile.masked for tile in layout.tiles) else None
    grad_query, grad_key, grad_value = (_Sink(grad, size, width, dtype) for grad in grads)

    if full:
        spread = _coarse_backward(group, chosen, outs, lses, grad_outs, grad_lses)
        _spread(spread[0], group.pooled.query_counts, group.query_padding_mask, grad_query)
        _spread(spread[1], group.pooled.key_counts, group.key_padding_mask, grad_key)
        _spread(spread[2], group.pooled.key_counts, group.key_padding_mask, grad_value)
    else:
        for sink in (grad_query, grad_key, grad_value):
            sink.blocks.zero_()

    for tile in layout.tiles:
        rows, columns = layout.rows[tile.start : tile.stop], layout.columns[tile.pairs]
        tile_grads = tile_backward(
            grad_outs.index_select(0, rows).to(dtype),
            None if grad_lses is None else grad_lses.index_select(0, rows),
            queries.index_select(0, rows).to(dtype),
            keys(columns, tile),
            values(columns, tile),
            outs.index_select(0, rows).to(dtype),
            lses.index_select(0, rows),
            None if bias is None or not tile.masked else _tile_bias(bias, columns, tile),
            group.scale,
        )
        grad_query.blocks.index_add_(0, rows, tile_grads[0])
        grad_key.blocks.index_add_(0, columns, tile_grads[1].reshape(-1, size, width))
        grad_value.blocks.index_add_(0, columns, tile_grads[2].reshape(-1, size, width))

    for sink in (grad_query, grad_key, grad_value):
        sink.finish()


def _merge(out: Tensor, fine_lse: Tensor, coarse_out: Tensor, coarse_lse: Tensor) -> Tensor:
    """Adds attention over the other blocks to ``out``, that over the chosen keys, in place.

    Args:
        out: [G·X, b, W], with log-sum-exp ``fine_lse`` [G·X, b].
        fine_lse: -inf for a query without a chosen key.
        coarse_out: [G·X, 1, W], the same for all queries of a block, as is its ``coarse_lse``.
        coarse_lse: [G·X, 1].

    Returns:
        The log-sum-exp of both, [G·X, b].
    """
    lse = torch.logaddexp(fine_lse, coarse_lse)
    shift = lse.masked_fill(lse == float("-inf"), 0)
    out.mul_((fine_lse - shift).exp_()[..., None])
    out.addcmul_(coarse_out, (coarse_lse - shift).exp_()[..., None])
    return lse


def _tile_bias(bias: Tensor, columns: Tensor, tile: Tile) -> Tensor:
    return bias.index_select(0, columns).view(tile.rows, 1, -1)


def _coarse_backward(
    group: HeadGroup,
    chosen: Tensor,
    outs: Tensor,
    lses: Tensor,
    grad_outs: Tensor,
    grad_lses: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the query, key and value means: [B', H', X or Y, D or Dv]."""
    dtype, (batch, heads, blocks_x, _) = group.pooled.scores.dtype, group.pooled.scores.shape
    probabilities, coarse_lse = coarse_attention(
        group.pooled.scores, group.pooled.key_counts, chosen
    )
    weights = (coarse_lse.view(-1, 1) - lses).exp_()  # [G·X, b]
    grad_outs = grad_outs.to(dtype)
    delta = (grad_outs * outs).sum(-1)
    if grad_lses is not None:
        delta = delta - grad_lses
    pulled = torch.bmm(weights[:, None], grad_outs).view(batch, heads, blocks_x, outs.shape[-1])
    pulled = pulled[..., : group.value.shape[-1]]  # [B', H', X, Dv]
    delta = (weights * delta).sum(-1).view(batch, heads, blocks_x, 1)

    return coarse_backward(
        probabilities,
        pulled,
        delta,
        group.pooled.query,
        group.pooled.key,
        group.pooled.value,
        group.scale,
    )


def _spread(grad_means: Tensor, counts: Tensor, padding_mask: Tensor | None, sink: _Sink) -> None:
    """Hands each block's gradient to its real tokens in equal parts."""
    blocks, size, width = sink.blocks.shape
    heads, channels = grad_means.shape[1], grad_means.shape[-1]
    share = grad_means / counts.clamp(min=1)[:, None, :, None]
    share = torch.nn.functional.pad(share, (0, width - channels)).view(blocks, 1, width)
    sink.blocks.copy_(share.expand(-1, size, -1))
    if padding_mask is not None:
        tail = counts.shape[-1] * size - padding_mask.shape[-1]
        padding = ~torch.nn.functional.pad(padding_mask, (0, tail))
        whole = sink.blocks.view(-1, heads, padding.shape[-1], width)
        whole.masked_fill_(padding[:, None, :, None], 0)


def _as_rows(x: Tensor, block_size: int, fill: float) -> Tensor:
    """[B', H', N] as [G·X, b], with ``fill`` behind the last token."""
    missing = block_count(x.shape[-1], block_size) * block_size - x.shape[-1]
    return torch.nn.functional.pad(x, (0, missing), value=fill).reshape(-1, block_size)
