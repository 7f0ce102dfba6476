"""Tiles: blocks of the row are patches of the grid."""

import pytest
import torch

from mra_plugin.ops.token_order import check_token_order, grid_coordinates, tile_order


@pytest.mark.parametrize("grid", [(7,), (5, 6), (1, 9), (24, 17), (3, 5, 4), (2, 3, 4, 5)], ids=str)
def test_every_token_has_one_place_and_comes_back(grid: tuple[int, ...]) -> None:
    coordinates = grid_coordinates(grid)
    order = tile_order(coordinates)
    assert order.sort().values.equal(torch.arange(len(coordinates)))
    assert coordinates[order][order.argsort()].equal(coordinates)


@pytest.mark.parametrize("grid", [(16, 24), (8, 16, 8), (40, 40)], ids=str)
@pytest.mark.parametrize("block", [4, 16, 64])
def test_blocks_are_compact(grid: tuple[int, ...], block: int) -> None:
    coordinates = grid_coordinates(grid)
    blocks = coordinates[tile_order(coordinates)].unflatten(0, (-1, block))  # [blocks, block, axes]
    sides = blocks.amax(1) - blocks.amin(1) + 1
    # As even as powers of two can be, and each token of the box in the block.
    assert bool((sides.prod(1) == block).all())
    assert bool((sides.amax(1) <= 2 * sides.amin(1)).all())


def test_an_axis_of_one_changes_nothing() -> None:
    flat = grid_coordinates((11, 13))
    for axes in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        wide = torch.zeros(len(flat), 3, dtype=torch.float)
        wide[:, [i for i, axis in enumerate(axes) if axis]] += flat
        assert tile_order(wide).equal(tile_order(flat))


def test_what_is_refused() -> None:
    check_token_order(None)
    with pytest.raises(ValueError, match=r"token_order must be .tiles., or None .* got 'rows'"):
        check_token_order("rows")
    with pytest.raises(ValueError, match=r"coordinates must be \[tokens, axes\].*got \[5\]"):
        tile_order(torch.arange(5))
