"""The window and the oracle, against brute force on tiny inputs."""

import itertools
from typing import Any

import pytest
import torch
from block_choices import band_of_blocks, oracle_attention, spread, window_attention
from oracle import HeadOracle
from torch import Tensor

from mra_plugin.ops import mra_attention

SIZE, BLOCKS, CHANNELS = 8, 4, 8
SCALE = 0.4


def head(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(SIZE * BLOCKS, CHANNELS, generator=generator) for _ in range(3)]


# Cells and salient keys: the paper's, finer cells, some keys (two of one cell, a whole one), both.
SCHEMES: list[dict[str, Any]] = [
    {},
    {"cell_size": 2},
    {"salient": torch.tensor([3, 6, 17])},
    {"cell_size": 2, "salient": torch.tensor([-1, 4, 5, 8, 31])},
    {"salient": torch.arange(8, 16)},
]


def mra_with(
    chosen: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cell_size: int = SIZE,
    salient: Tensor | None = None,
) -> Tensor:
    """MRA-2 attention with these pairs of blocks and keys exact, by its definition, key by key."""
    special = set() if salient is None else {j for j in salient.tolist() if j >= 0}
    out = torch.empty_like(value)
    for i in range(SIZE * BLOCKS):
        x = i // SIZE
        query_mean = query[x * SIZE : (x + 1) * SIZE].mean(0)
        scores = []
        for j in range(SIZE * BLOCKS):
            if j in special or chosen[x, j // SIZE]:
                scores.append(query[i] @ key[j])
                continue
            start = j // cell_size * cell_size
            cell = [k for k in range(start, start + cell_size) if k not in special]
            scores.append(query_mean @ key[cell].mean(0))
        out[i] = torch.softmax(SCALE * torch.stack(scores), -1) @ value
    # That cells' values are averaged changes nothing: all keys of a cell weigh the same.
    return out


def squared_error(chosen: Tensor, inputs: list[Tensor], **scheme: Any) -> float:
    oracle = HeadOracle(*inputs, block_size=SIZE, scale=SCALE, **scheme)
    exact = torch.softmax(SCALE * inputs[0] @ inputs[1].T, -1) @ inputs[2]
    return (oracle.attend(chosen) - exact).square().sum().item()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_oracle_attends_as_mra_attention_does(scheme: dict[str, Any]) -> None:
    inputs = head(0)
    chosen = torch.rand(BLOCKS, BLOCKS, generator=torch.Generator().manual_seed(1)) < 0.4
    oracle = HeadOracle(*inputs, block_size=SIZE, scale=SCALE, **scheme)
    torch.testing.assert_close(oracle.attend(chosen), mra_with(chosen, *inputs, **scheme))


def test_the_oracle_is_given_the_salient_keys_of_mra_attention() -> None:
    # All of the attention goes to two keys of different blocks: more pairs than there may be.
    query, key, value = (x[None, None] for x in head(0))
    query[..., 0] = 8
    key[..., 0] = 0
    key[..., [3, 17], 0] = 20
    exact = torch.softmax(SCALE * query @ key.mT, -1) @ value
    options = {"block_size": SIZE, "block_per_row": 1, "scale": SCALE}
    without = oracle_attention(query, key, value, **options)
    found = oracle_attention(query, key, value, salient_keys=2, **options)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)
    assert (without - exact).norm() > 0.1 * exact.norm()


def test_the_oracle_attends_where_almost_nothing_was_chosen() -> None:
    # All of the attention goes to one block, which the choice leaves out.
    query, key, value = head(0)
    query[:, 0], key[:, 0] = 1.0, 0.0
    key[0, 0] = 40.0
    chosen = torch.zeros(BLOCKS, BLOCKS, dtype=torch.bool)
    chosen[:, 1] = True
    oracle = HeadOracle(query, key, value, block_size=SIZE, scale=SCALE)
    expected = mra_with(chosen, query, key, value)
    torch.testing.assert_close(oracle.attend(chosen), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scheme", [SCHEMES[0], SCHEMES[3]])
@pytest.mark.parametrize(("budget", "bound"), [(1, 1.02), (2, 1.35), (4, 1.25)])
def test_the_oracle_is_close_to_the_best_of_all_choices(
    budget: int, bound: float, scheme: dict[str, Any]
) -> None:
    found = best = 0.0
    for seed in range(5):
        inputs = head(seed)
        oracle = HeadOracle(*inputs, block_size=SIZE, scale=SCALE, **scheme)
        choice = oracle.choose(budget)
        assert choice.sum() == budget
        found += squared_error(choice, inputs, **scheme)
        best += least_squared_error(oracle, inputs, budget)
    assert best <= found <= bound * best


def least_squared_error(oracle: HeadOracle, inputs: list[Tensor], budget: int) -> float:
    exact = torch.softmax(SCALE * inputs[0] @ inputs[1].T, -1) @ inputs[2]

    def error(pairs: tuple[int, ...]) -> float:
        chosen = torch.zeros(BLOCKS * BLOCKS, dtype=torch.bool)
        chosen[list(pairs)] = True
        return (oracle.attend(chosen.view(BLOCKS, BLOCKS)) - exact).square().sum().item()

    return min(map(error, itertools.combinations(range(BLOCKS * BLOCKS), budget)))


@pytest.mark.parametrize("more", [{}, {"coarse_key_size": 2, "salient_keys": 3}])
@pytest.mark.parametrize("per_row", [1, 2, 3])
def test_the_oracle_is_closer_than_mra_attention_with_the_same_budget(
    per_row: int, more: dict[str, Any]
) -> None:
    inputs = [torch.stack([head(seed)[i] for seed in range(4)])[None] for i in range(3)]
    options = {"block_size": SIZE, "scale": SCALE, **more}
    exact = mra_attention(*inputs, block_per_row=BLOCKS, **options)
    oracle = oracle_attention(*inputs, block_per_row=per_row, **options)
    mra = mra_attention(*inputs, block_per_row=per_row, **options)
    assert (oracle - exact).norm() < (mra - exact).norm()


def test_a_band_has_as_many_blocks_in_each_row() -> None:
    assert band_of_blocks(5, 2).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1],
    ]
    assert band_of_blocks(4, 4).all()


def test_the_window_is_exact_attention_within_the_band() -> None:
    query, key, value = head(0)
    scores = (SCALE * query @ key.T).masked_fill(~spread(band_of_blocks(BLOCKS, 3), SIZE), -1e9)
    found = window_attention(
        query[None, None],
        key[None, None],
        value[None, None],
        block_size=SIZE,
        block_per_row=3,
        scale=SCALE,
    )
    torch.testing.assert_close(found[0, 0], torch.softmax(scores, -1) @ value)
