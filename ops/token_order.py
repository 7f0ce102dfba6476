"""An order of a grid's tokens in which neighbours in the row are neighbours in the picture or clip.

Blocks of attention are runs of the row. Of a picture in reading order they are strips of one line;
in tiles they are compact patches. The order is made from the tokens' coordinates, so that grids of
any size, and several in one row, are the same to it, and so that nothing waits for the device.

A Hilbert curve, tried beside it, comes no closer to exact attention: tiles are simpler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# What `token_order` may be, beside None for the model's own row.
TILES = "tiles"

# Bits of a coordinate: sides up to 4096, and up to five axes in an int64.
_BITS = 12
# Those of them that count inside of a tile: 8 tokens along each axis.
_INNER_BITS = 3


def check_token_order(order: Any) -> None:
    """Raises ValueError if it is neither an order nor None."""
    if order is not None and order != TILES:
        raise ValueError(
            f'token_order must be "{TILES}", or None for the row as it is, got {order!r}'
        )


def grid_coordinates(grid: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """Where each token of a grid in reading order stands.

    Args:
        grid: its sides, such as (height, width) or (frames, height, width).
        device: where to make them.

    Returns:
        int64 [tokens, axes].
    """
    sides = [torch.arange(side, device=device) for side in grid]
    return torch.stack(torch.meshgrid(sides, indexing="ij"), -1).flatten(0, -2)


def tile_order(coordinates: Tensor) -> Tensor:
    """Which token stands at each place of the row: tile by tile, and in a tile half by half.

    Tiles are 8 tokens wide along each axis and follow each other in reading order. In each, tokens
    follow a Z-order curve: any 4, 16 or 64 of a picture's that start at a multiple are a square.

    Args:
        coordinates: [tokens, axes], whole numbers from 0 to 4095 in any dtype, at most five axes.

    Returns:
        int64 [tokens]: ``x[order]`` is x in this order, and ``order.argsort()`` leads back.

    Raises:
        ValueError: the coordinates have another shape.
    """
    if coordinates.ndim != 2 or not 1 <= coordinates.shape[1] <= 5:
        raise ValueError(
            "coordinates must be [tokens, axes] with at most five axes, "
            f"got {list(coordinates.shape)}"
        )
    axes = coordinates.long().unbind(1)
    key = torch.zeros_like(axes[0])
    for axis in axes:
        key = key << (_BITS - _INNER_BITS) | axis >> _INNER_BITS
    for bit in reversed(range(_INNER_BITS)):
        for axis in axes:
            key = key << 1 | axis >> bit & 1
    return key.argsort(stable=True)
