"""Smooth latents: neighbours are alike, and what is measured of them."""

import pytest
import test_pictures
import torch
from closeness import closeness
from settings import Settings
from smooth_latents import smooth_field, smooth_inputs
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from mra_plugin.ops import mra_attention
from mra_plugin.ops.token_order import grid_coordinates, tile_order

SETTINGS = Settings(full=False, device=torch.device("cpu"), dtype=torch.float32)


@pytest.mark.parametrize("grid", [(20, 36), (8, 10, 12)], ids=str)
def test_neighbours_are_alike_along_each_axis(grid: tuple[int, ...]) -> None:
    field = smooth_field(grid).unflatten(0, grid)
    half, axes = tuple(side // 2 for side in grid), tuple(range(len(grid)))
    far = cosine_similarity(field, field.roll(half, axes), dim=-1)
    for axis in axes:
        near = cosine_similarity(field.narrow(axis, 1, 5), field.narrow(axis, 0, 5), dim=-1)
        assert near.mean() > far.mean() + 0.3


@pytest.mark.parametrize("grid", [(24, 40), (8, 10, 12)], ids=str)
def test_tiles_are_closer_than_rows(grid: tuple[int, ...]) -> None:
    query, key, value = smooth_inputs(grid, 2, 24)
    exact = scaled_dot_product_attention(query, key, value)
    options = {"block_size": 16, "block_per_row": 4, "selection": "per_row", "coarse_key_size": 4}
    order = tile_order(grid_coordinates(grid))
    rows = mra_attention(query, key, value, **options)
    tiles = mra_attention(*(x[:, :, order] for x in (query, key, value)), **options)
    assert closeness(exact[:, :, order], tiles)[0] < 0.9 * closeness(exact, rows)[0]


@pytest.mark.parametrize("what", test_pictures.RUNS)
def test_each_method_gives_what_exact_attention_gives_of_few_tokens(what: str) -> None:
    """As the preset leaves so few exact."""
    outs = [test_pictures.RUNS[what](name, (5, 5), SETTINGS)() for name in test_pictures.METHODS]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], atol=1e-4, rtol=1e-4)
