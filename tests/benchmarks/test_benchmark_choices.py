"""The window and the oracle, against brute force on tiny inputs."""

import itertools

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


def mra_with(chosen: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """MRA-2 attention with these pairs of blocks exact, by its definition."""
    means = [x.view(BLOCKS, SIZE, CHANNELS).mean(1) for x in (query, key)]
    coarse = means[0] @ means[1].T
    scores = torch.where(spread(chosen, SIZE), query @ key.T, spread(coarse, SIZE))
    return torch.softmax(SCALE * scores, -1) @ value


def squared_error(chosen: Tensor, inputs: list[Tensor]) -> float:
    exact = torch.ones(BLOCKS, BLOCKS, dtype=torch.bool)
    return (mra_with(chosen, *inputs) - mra_with(exact, *inputs)).square().sum().item()


def test_the_oracle_attends_as_mra_attention_does() -> None:
    inputs = head(0)
    chosen = torch.rand(BLOCKS, BLOCKS, generator=torch.Generator().manual_seed(1)) < 0.4
    oracle = HeadOracle(*inputs, block_size=SIZE, scale=SCALE)
    torch.testing.assert_close(oracle.attend(chosen), mra_with(chosen, *inputs))


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


@pytest.mark.parametrize(("budget", "bound"), [(1, 1.01), (2, 1.35), (4, 1.25)])
def test_the_oracle_is_close_to_the_best_of_all_choices(budget: int, bound: float) -> None:
    found = best = 0.0
    for seed in range(5):
        inputs = head(seed)
        choice = HeadOracle(*inputs, block_size=SIZE, scale=SCALE).choose(budget)
        assert choice.sum() == budget
        found += squared_error(choice, inputs)
        best += least_squared_error(inputs, budget)
    assert best <= found <= bound * best


def least_squared_error(inputs: list[Tensor], budget: int) -> float:
    def error(pairs: tuple[int, ...]) -> float:
        chosen = torch.zeros(BLOCKS * BLOCKS, dtype=torch.bool)
        chosen[list(pairs)] = True
        return squared_error(chosen.view(BLOCKS, BLOCKS), inputs)

    return min(map(error, itertools.combinations(range(BLOCKS * BLOCKS), budget)))


@pytest.mark.parametrize("per_row", [1, 2, 3])
def test_the_oracle_is_closer_than_mra_attention_with_the_same_budget(per_row: int) -> None:
    inputs = [torch.stack([head(seed)[i] for seed in range(4)])[None] for i in range(3)]
    options = {"block_size": SIZE, "scale": SCALE}
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
