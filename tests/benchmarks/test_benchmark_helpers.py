"""Arithmetic, closeness, and the timing in turns."""

from collections.abc import Callable

import arithmetic
import interleaved
import pytest
import torch
from approximations import METHODS, approximation, budgets
from closeness import closeness
from interleaved import Step, compare, ratios
from settings import settings_of
from torch import Tensor

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
    # 2 x 2 blocks of 2 tokens, one exact block in each row.
    exact, scores, values, pooled = 2 * (2 * 2) * 2 * 10, 4 * 10, 4 * 10, 3 * 4 * 10
    full = arithmetic.mra(4, 10, 2, 1, averages=True)
    assert full == (exact + scores + values + pooled) / arithmetic.dense(4, 10)
    sparse = arithmetic.mra(4, 10, 2, 1, averages=False)
    assert sparse == (exact + scores + 2 * 4 * 10) / arithmetic.dense(4, 10)
    pooled, long, short, inverse = 2 * 8 * 10, 4 * 8 * 2 * 10, 2 * 2 * 2 * 10, 6 * 4 * 2**3
    expected = (pooled + long + short + inverse) / arithmetic.dense(8, 10)
    assert arithmetic.nystrom(8, 10, 2, 6) == expected


def test_budgets_that_make_everything_exact_are_left_out() -> None:
    assert budgets("mra", 512) == budgets("oracle", 512) == [1, 2, 4, 8]
    assert budgets("window", 4096) == [1, 2, 4, 8, 16, 32, 64]
    assert budgets("nystrom", 512) == [8, 16, 32, 64, 128, 256]


def test_unknown_device_is_refused_in_one_line() -> None:
    class Config:
        def getoption(self, name: str) -> str:
            return "abacus"

    with pytest.raises(pytest.UsageError, match="--device 'abacus' can't be used here"):
        settings_of(Config())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_each_approximation_attends(method: str) -> None:
    query, key, value = torch.randn(3, 1, 2, 128, 16)
    one = approximation(method, 128, 16, 2)
    out = one.attend(query, key, value, scale=0.25)
    assert out.shape == value.shape
    assert (one.density is None) == (method == "nystrom")
    if one.density is not None:
        assert one.density == 0.5
        assert one.density <= one.relative_cost < 0.55
