"""Arithmetic, closeness, and the timing in turns."""

from collections.abc import Callable
from dataclasses import replace

import arithmetic
import interleaved
import pytest
import torch
from approximations import METHODS, approximation, budgets, quick_budgets
from closeness import closeness
from interleaved import Step, compare, ratios
from settings import settings_of
from torch import Tensor

from mra_plugin.ops import PRESETS, MRAOptions, plan, preset_options
from mra_plugin.report.style import ADDITIONS

CPU = torch.device("cpu")


class OneRoundEach:
    """Stands in for pytest-benchmark's fixture."""

    rounds = 0

    def pedantic(self, target: Callable[[], None], setup: Callable[[], None], rounds: int) -> None:
        self.rounds = rounds
        for _ in range(rounds):
            setup()
            target()


def test_ratios_are_those_of_the_same_round() -> None:
    assert ratios([1.0, 2.0, 4.0], [3.0, 4.0, 4.0]) == {
        "seconds": 2.0,
        "reference_seconds": 4.0,
        "speed_up": 2.0,
        "speed_up_from": 1.0,
        "speed_up_to": 3.0,
    }


def noting(name: str, calls: list[str]) -> Step:
    def run() -> Tensor:
        calls.append(name)
        return torch.zeros(100) + 1

    return Step(run, CPU)


def test_the_reference_goes_first_in_every_round() -> None:
    calls: list[str] = []
    own, reference = noting("own", calls), noting("reference", calls)
    calls.clear()
    benchmark = OneRoundEach()
    found = compare(benchmark, own, reference, enough=0.0)
    assert calls == ["reference", "own"] * interleaved.LEAST_ROUNDS
    assert found["speed_up_from"] <= found["speed_up"] <= found["speed_up_to"]
    assert found["peak_bytes"] >= 400


def test_the_reference_alone_is_as_fast_as_itself() -> None:
    calls: list[str] = []
    reference = noting("reference", calls)
    calls.clear()
    found = compare(OneRoundEach(), reference, reference, enough=1e9)
    assert calls == ["reference"] * interleaved.MOST_ROUNDS
    assert found["speed_up_from"] == found["speed_up_to"] == 1
    assert found["seconds"] == found["reference_seconds"]


def test_closeness_of_known_outputs() -> None:
    exact = torch.tensor([[3.0, 0.0], [0.0, 4.0]])[None, None]
    assert closeness(exact, exact) == (0, 1)
    assert closeness(exact, -exact) == pytest.approx((2, -1))
    turned = torch.tensor([[3.0, 0.0], [4.0, 0.0]])[None, None]
    assert closeness(exact, turned) == pytest.approx((32**0.5 / 5, 0.5))


def test_multiply_adds_counted_by_hand() -> None:
    assert arithmetic.dense(4, 10) == 2 * 4 * 4 * 10
    # 2 x 2 blocks of 8 tokens, one exact block in each row.
    exact, scores, values, pooled = 2 * (8 * 8) * 2 * 10, 4 * 10, 4 * 10, 3 * 16 * 10
    options = MRAOptions(block_size=8, block_per_row=1)
    dense = arithmetic.dense(16, 10)
    full = arithmetic.mra(16, 10, options)
    assert full == (exact + scores + values + pooled) / dense
    sparse = arithmetic.mra(16, 10, replace(options, approx_mode="sparse"))
    assert sparse == (exact + scores + 2 * 16 * 10) / dense
    # 2 blocks and 4 cells: twice as many scores and products with values.
    cells = arithmetic.mra(16, 10, replace(options, coarse_key_size=4, block_score="mass"))
    assert cells == (exact + 2 * (scores + values) + pooled) / dense
    # Both blocks' means with all keys, and 3 keys for each query.
    salient = arithmetic.mra(16, 10, replace(options, salient_keys=3))
    added = 2 * 16 * 10 + 2 * 16 * 3 * 10
    assert salient == (exact + scores + values + pooled + added) / dense


def test_salient_keys_are_found_with_as_many_blocks_as_are_counted() -> None:
    assert arithmetic.PROBES == plan._PROBES


def test_multiply_adds_of_nystrom_counted_by_hand() -> None:
    pooled, long, short, inverse = 2 * 8 * 10, 4 * 8 * 2 * 10, 2 * 2 * 2 * 10, 6 * 4 * 2**3
    expected = (pooled + long + short + inverse) / arithmetic.dense(8, 10)
    assert arithmetic.nystrom(8, 10, 2, 6) == expected


def test_budgets_that_make_everything_exact_are_left_out() -> None:
    assert budgets("mra", 512) == budgets("oracle", 512) == [1, 2, 4, 8]
    assert budgets("window", 4096) == [1, 2, 4, 8, 16, 32, 64]
    # As many keys, in smaller blocks, and the budget of the preset.
    close = PRESETS["close"]
    assert {n * 32 // close.block_size for n in (1, 2, 4, 8)} <= set(budgets("mra close", 512))
    assert close.block_per_row in budgets("mra close", 4096)
    assert max(budgets("oracle close", 512)) * close.block_size < 512
    assert budgets("nystrom", 512) == [8, 16, 32, 64, 128, 256]


def test_unknown_device_is_refused_in_one_line() -> None:
    class Config:
        def getoption(self, name: str) -> str:
            return "abacus"

    with pytest.raises(pytest.UsageError, match="--device 'abacus' can't be used here"):
        settings_of(Config())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tokens", [512, 4096])
def test_the_quick_budgets_are_some_of_all(method: str, tokens: int) -> None:
    few = quick_budgets(method, tokens)
    assert few
    assert set(few) <= set(budgets(method, tokens))


@pytest.mark.parametrize("method", METHODS)
def test_each_approximation_attends(method: str) -> None:
    query, key, value = torch.randn(3, 1, 2, 256, 16)
    one = approximation(method, 256, 16, 2)
    out = one.attend(query, key, value, scale=0.25)
    assert out.shape == value.shape
    assert (one.density is None) == (method == "nystrom")
    if one.density is None:
        assert one.budget_unit == "landmarks"
        return
    options = MRAOptions(**one.params)
    assert one.density == (2 * options.block_size + options.salient_keys) / 256
    assert one.density <= one.relative_cost
    assert one.budget_unit == (
        "blocks per row" if options.block_size == 32 else f"blocks of {options.block_size} per row"
    )


def test_each_addition_of_the_preset_stands_by_itself() -> None:
    """Beside the choice by row, which is a method of its own."""
    paper, close = (
        {**preset_options(name), "block_per_row": 2, "exact_up_to": 0} for name in PRESETS
    )
    together = dict(paper)
    for method in ("mra per_row", *ADDITIONS):
        params = approximation(method, 256, 16, 2).params
        changed = {name: value for name, value in params.items() if value != paper[name]}
        assert len(changed) == 1, method
        together |= changed
    assert together == close == approximation("mra close", 256, 16, 2).params
