"""Small batched attentions over gathered key blocks, and how chosen blocks are laid out in them.

Shapes: T query blocks in a tile, each of b tokens; n = m x b tokens of the m key blocks that each
of them chose; W channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Tile:
    """Query blocks ``rows[start:stop]`` of a layout; all chose ``width`` key blocks.

    ``masked`` says that some of those key blocks hold tokens that are not real.
    """

    start: int
    stop: int
    first_pair: int
    width: int
    masked: bool

    @property
    def rows(self) -> int:
        """T, the number of query blocks."""
        return self.stop - self.start

    @property
    def pairs(self) -> slice:
        """Where this tile's key blocks stand in the layout's columns."""
        return slice(self.first_pair, self.first_pair + self.rows * self.width)


@dataclass(frozen=True)
class Layout:
    """The chosen blocks as tiles.

    Attributes:
        rows: int64 [R], query blocks that chose something, in tile order.
        columns: int64 [P], their key blocks, row after row.
        tiles: consecutive pieces of rows and columns.
    """

    rows: Tensor
    columns: Tensor
    tiles: list[Tile]

    @property
    def most_pairs(self) -> int:
        """Key blocks of the largest tile."""
        return max((tile.rows * tile.width for tile in self.tiles), default=0)


def lay_out(chosen: Tensor, partial: Tensor, pairs_per_tile: int, least_rows: int) -> Layout:
    """Sorts query blocks by how many key blocks they chose and cuts them into tiles.

    Args:
        chosen: bool [G, X, Y].
        partial: bool [G, Y], key blocks with tokens that are not real.
        pairs_per_tile: gathered key blocks that a tile may hold.
        least_rows: query blocks that a tile holds at least, where its bucket has as many.
    """
    _, blocks_x, blocks_y = chosen.shape
    width = chosen.sum(-1).flatten()  # [G·X]
    masked = (chosen & partial[:, None, :]).any(-1).flatten()
    bucket = 2 * width + masked
    order = bucket.argsort(stable=True)
    buckets, sizes = torch.unique_consecutive(bucket[order], return_counts=True)
    idle = int((width == 0).sum())
    rows = order[idle:]

    row_of_pair, block = chosen.flatten(0, 1)[rows].nonzero(as_tuple=True)
    columns = rows[row_of_pair].div(blocks_x, rounding_mode="floor") * blocks_y + block

    tiles = []
    start = pair = 0
    for label, size in zip(buckets.tolist(), sizes.tolist(), strict=True):
        m, is_masked = divmod(label, 2)
        if not m:
            continue
        step = max(pairs_per_tile // m, least_rows)
        end = start + size
        while start < end:
            stop = min(start + step, end)
            tiles.append(Tile(start, stop, pair, m, bool(is_masked)))
            pair += (stop - start) * m
            start = stop
    return Layout(rows, columns, tiles)


def tile_forward(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Exact attention of [T, b, W] over [T, n, W]: output [T, b, W], log-sum-exp [T, b].

    ``bias`` [T, 1, n] is 0 for a real key and -inf for any other; every query has a real key.
    """
    if _has_flash(query):
        out, lse = _flash(
            query[:, None],
            key[:, None],
            value[:, None],
            attn_mask=None if bias is None else bias[:, None],
            scale=scale,
        )
        return out[:, 0], lse[:, 0]
    scores = _scores(query, key, bias, scale)
    lse = scores.logsumexp(-1)
    return torch.bmm(scores.sub_(lse[..., None]).exp_(), value), lse


def tile_backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value in a tile.

    ``out`` and ``lse`` are those of the whole attention that the tile is a part of: what it
    attends to elsewhere enters through them alone. ``lse`` is +inf for a query without output.
    """
    if grad_lse is None and _has_flash(query):
        grads = _flash_backward(
            grad_out[:, None],
            query[:, None],
            key[:, None],
            value[:, None],
            out[:, None],
            lse[:, None],
            0.0,
            False,
            attn_mask=None if bias is None else bias[:, None],
            scale=scale,
        )
        return grads[0][:, 0], grads[1][:, 0], grads[2][:, 0]
    weights = _scores(query, key, bias, scale).sub_(lse[..., None]).exp_()  # [T, b, n]
    delta = (grad_out * out).sum(-1)
    if grad_lse is not None:
        delta = delta - grad_lse
    grad_value = torch.bmm(weights.transpose(1, 2), grad_out)
    grad_scores = torch.bmm(grad_out, value.transpose(1, 2)).sub_(delta[..., None])
    grad_scores.mul_(weights).mul_(scale)
    return (
        torch.bmm(grad_scores, key),
        torch.bmm(grad_scores.transpose(1, 2), query),
        grad_value,
    )


def _has_flash(x: Tensor) -> bool:
    return x.device.type == "cpu"


def _scores(query: Tensor, key: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = torch.bmm(query * scale, key.transpose(1, 2))  # [T, b, n]
    return scores if bias is None else scores.add_(bias)
