"""The search by itself, on made-up models whose best setting is known."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from mra_plugin.ops import preset_options
from mra_plugin.ops.presets import PRESETS
from mra_plugin.tuning.candidates import FAMILIES, Family, Setting, budgets
from mra_plugin.tuning.result import Row, Times, geometric_mean
from mra_plugin.tuning.search import GAIN, Part, Search

PARTS: tuple[Part, ...] = ("glance", "search", "held out")


class MadeUp:
    """Closeness grows with the budget and falls with the length, time grows with both."""

    def __init__(self, seed: int = 0, *, overhead: float = 0.0, uneven: float = 0.0) -> None:
        chance = random.Random(seed)
        self.distance = {family: chance.uniform(1, 5) for family in FAMILIES}
        self.cost = {family: chance.uniform(1, 4) for family in FAMILIES}
        self.of_part = {part: 1 + uneven * chance.uniform(-1, 1) for part in PARTS}
        self.overhead = overhead
        self.calls: list[tuple[Setting, int, str]] = []

    def closeness(self, setting: Setting, tokens: int, part: Part) -> float:
        self.calls.append((setting, tokens, part))
        if tokens <= setting.exact_up_to:
            return 1.0
        left_out = 1 - min(1, setting.budget / tokens)
        distance = self.distance[setting.family] * self.of_part[part]
        return 1 - distance * left_out / (setting.budget**0.5 * 10)

    def times(self, setting: Setting, tokens: int, careful: bool) -> Times:
        self.calls.append((setting, tokens, f"time, careful={careful}"))
        exact = tokens + tokens**2 / 1000
        if tokens <= setting.exact_up_to:
            return Times(exact, exact)
        own = tokens * (1 + (200 + setting.budget) / 1000 * self.cost[setting.family])
        return Times(own + self.overhead, exact)

    def fastest(self, lengths: list[int], target: float) -> float:
        """The greatest speed-up that there is, by asking for everything."""
        found = [1.0]
        for family in FAMILIES:
            for budget in budgets(lengths[-1]):
                for first in range(len(lengths)):
                    setting, used = Setting(family, budget), lengths[first:]
                    ups = [self.times(setting, tokens, True).speed_up for tokens in used]
                    close = [self.closeness(setting, tokens, "search") for tokens in used]
                    if min(ups) > 1 and min(close) >= target:
                        found.append(geometric_mean([*ups, *[1.0] * first]))
        return max(found)


def search(
    bench: MadeUp, lengths: list[int], target: float, families: tuple[Family, ...] = FAMILIES
) -> tuple[Row | None, list[Row]]:
    shares: list[float] = []
    tried = budgets(lengths[-1])
    run = Search(bench, lengths, families, tried, target, lambda share, _: shares.append(share))
    found = run.run()
    assert shares == sorted(shares)
    assert max(shares) <= 1
    return found


def setting_of(row: Row) -> Setting:
    """The setting that options spell."""
    options = row.options
    (family,) = (
        one
        for one in FAMILIES
        if Setting(one, 64).options
        == {**options, "block_per_row": 64 // one.block_size, "exact_up_to": 0}
    )
    budget = options["block_per_row"] * options["block_size"]
    return Setting(family, budget, options["exact_up_to"])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("target", [0.9, 0.98, 0.995])
@pytest.mark.parametrize("lengths", [[4096], [512, 2048], [512, 1024, 4096]])
def test_the_fastest_is_found_with_few_measurements(
    lengths: list[int], target: float, seed: int
) -> None:
    bench = MadeUp(seed)
    best, frontier = search(bench, lengths, target)
    asked = len(bench.calls)
    fastest = bench.fastest(lengths, target)
    if fastest < GAIN:
        assert best is None
        return
    assert best is not None
    assert best.speed_up == pytest.approx(fastest)
    assert best in frontier
    assert len(set(bench.calls[:asked])) == asked  # nothing twice
    assert asked < 60 * (1 + len(lengths))  # of 171 settings, at each length and three times


@pytest.mark.parametrize("seed", range(30))
def test_what_misses_the_target_on_either_half_is_never_picked(seed: int) -> None:
    bench, lengths, target = MadeUp(seed, uneven=0.6), [512, 2048], 0.98
    best, frontier = search(bench, lengths, target)
    if best is None:
        return
    assert best.speed_up >= GAIN
    assert best.closeness >= target
    picked = setting_of(best)
    for part in ("search", "held out"):
        assert all(bench.closeness(picked, tokens, part) >= target for tokens in lengths)
    for one, other in pairwise(frontier):
        assert one.speed_up >= other.speed_up
        assert one.closeness < other.closeness or best in (one, other)


def test_held_out_documents_only_ever_raise_the_budget() -> None:
    easy, hard = MadeUp(3), MadeUp(3)
    hard.of_part["held out"] = 1.15
    found = [search(bench, [2048], 0.985, FAMILIES[:1])[0] for bench in (easy, hard)]
    first, second = (setting_of(row) for row in found if row is not None)
    assert second.budget > first.budget


@pytest.mark.parametrize("why", ["too slow", "too far", "either", "too short"])
def test_none_is_none_and_shows_what_there_is(why: str) -> None:
    bench, target, lengths = MadeUp(), 0.98, [512, 2048]
    if why == "too slow":
        bench.overhead = 1e9
    elif why == "too far":
        bench.distance = dict.fromkeys(FAMILIES, 1e3)
    elif why == "either":  # what is close is slow
        target = 0.9999
    else:
        lengths = [32, 100]
    best, frontier = search(bench, lengths, target)
    assert best is None
    if why == "too short":
        assert frontier == []
    else:
        assert 1 <= len(frontier) <= 12
        assert all(row.speed_up < GAIN or row.closeness < target for row in frontier)


@pytest.mark.parametrize("lengths", [[4096], [300, 4096], [1024, 4096]])
def test_short_inputs_stay_exact(lengths: list[int]) -> None:
    """They gain from 700 on, and are asked at halves of the lengths that are given."""
    bench = MadeUp()
    bench.cost = dict.fromkeys(FAMILIES, 0.2)
    bench.overhead = 700 * (700 / 1000 - 0.12)
    best, _ = search(bench, lengths, 0.96)
    assert best is not None
    assert best.options["exact_up_to"] == 1023
    assert [one.closeness == 1 for one in best.lengths] == [one < 1024 for one in lengths]


def test_the_grid_holds_the_presets() -> None:
    tried = {
        tuple(sorted(Setting(family, budget).options.items(), key=str))
        for family in FAMILIES
        for budget in budgets(4096)
    }
    for name in PRESETS:
        options = {**preset_options(name), "exact_up_to": 0}
        assert tuple(sorted(options.items(), key=str)) in tried
    longest = replace(Setting(FAMILIES[0], 64), exact_up_to=99)
    assert longest.options["exact_up_to"] == 99
