"""The search for the fastest setting that is close enough. It knows no model: it asks a bench.

It goes from coarse to fine, and rests on two things: of one family, a larger budget is closer to
exact attention, and slower.

1. Cost. Each family is timed with its least budget. Where even that gains nothing, no budget will;
   and no setting of a family is faster.
2. Budget. The family that can be fastest comes first, and its least budget that reaches the target
   on one document is found by bisection. Families that can't be faster than what was found are
   left out.
3. All documents. The best few have their budget adjusted to all documents of the search.
4. Held out. They are measured again, with care and on documents that took no part. One that misses
   the target there gets more budget, or is dropped: these documents never speak for a setting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from .candidates import Family, Setting
from .result import AtLength, Row, Times, geometric_mean

# Documents: one of the search's, all of the search's, those that are held out.
Part = Literal["glance", "search", "held out"]

# Over all lengths, less is no gain that anyone would notice, or that a clock could be sure of.
GAIN = 1.05
_FINALISTS = 3
# How often the budget may be moved to suit all documents, and then to suit those held out.
_MOVES, _VETOES = 6, 2
# No shorter inputs are asked whether they gain.
_SHORTEST = 64


class Bench(Protocol):
    """Whatever measures settings."""

    def closeness(self, setting: Setting, tokens: int, part: Part) -> float:
        """How close the output is to exact attention's, 1 at best."""
        ...

    def times(self, setting: Setting, tokens: int, careful: bool) -> Times:
        """What a forward pass takes; with more rounds if that is to be careful."""
        ...


@dataclass(frozen=True)
class Candidate:
    """A setting, and what it is expected to give.

    Attributes:
        setting: exact where it would gain nothing.
        speed_up: geometric mean over the lengths.
    """

    setting: Setting
    speed_up: float


class Search:
    """One search; `run` it once."""

    def __init__(
        self,
        bench: Bench,
        lengths: Sequence[int],
        families: Sequence[Family],
        budgets: Sequence[int],
        target: float,
        progress: Callable[[float, str], None],
    ) -> None:
        """Takes the question.

        Args:
            bench: measures.
            lengths: tokens, ascending; the target has to be reached at all of them.
            families: to choose from.
            budgets: for each family, ascending.
            target: least closeness.
            progress: is told which share of the work is done, and what comes next.
        """
        self._bench = bench
        self._lengths = lengths
        self._families = families if budgets else ()
        self._budgets = budgets
        self._target = target
        self._progress = progress
        self._closeness: dict[tuple[Setting, int, Part], float] = {}
        self._times: dict[tuple[Setting, int, bool], Times] = {}
        self._rows: dict[Setting, Row] = {}

    def run(self) -> tuple[Row | None, list[Row]]:
        """Searches.

        Returns:
            (the fastest row that gains and reaches the target, or None; the frontier of all that
            were measured on the held-out documents, the fastest first).
        """
        bounds = self._cost()
        candidates: list[Candidate] = []
        for number, (family, bound) in enumerate(bounds):
            self._progress(0.3 + 0.3 * number / len(bounds), f"budget of {_named(family)}")
            if bound > max((one.speed_up for one in candidates), default=GAIN):
                candidates += self._candidates(family)
        candidates.sort(key=lambda one: one.speed_up, reverse=True)
        for number, candidate in enumerate(candidates[:_FINALISTS]):
            self._progress(0.6 + 0.3 * number / _FINALISTS, f"finalist {number + 1}")
            if (settled := self._settled(candidate.setting)) is not None:
                self._confirm(self._exact_where_it_pays(settled))
        self._progress(0.9, "settings around it")
        for setting in self._around(self._best(), [family for family, _ in bounds]):
            self._row(setting)
        best = self._best()
        return (None if best is None else self._rows[best]), self._frontier(best)

    def _cost(self) -> list[tuple[Family, float]]:
        """Families that gain with their least budget, and how fast they can be; fastest first."""
        found = []
        for number, family in enumerate(self._families):
            self._progress(0.3 * number / len(self._families), f"cost of {_named(family)}")
            least = Setting(family, self._budgets[0])
            gaining = []
            for tokens in reversed(self._lengths):
                speed_up = self._time(least, tokens).speed_up
                if speed_up <= 1:
                    break
                gaining.append(speed_up)
            if (bound := self._mean(gaining)) >= GAIN:
                found.append((family, bound))
        return sorted(found, key=lambda one: one[1], reverse=True)

    def _candidates(self, family: Family) -> list[Candidate]:
        """The least budgets of a family that reach the target on one document, where they gain.

        The first is for the longest inputs alone, with exact attention for all others, the next
        for the two longest, and so on.
        """
        found = []
        place = 0
        for first in reversed(range(len(self._lengths))):
            used = self._lengths[first:]
            if self._time(Setting(family, self._budgets[0]), used[0]).speed_up <= 1:
                break
            place = self._least_budget(family, used[0], place)
            if place == len(self._budgets):
                break
            setting = Setting(family, self._budgets[place])
            speed_ups = [self._time(setting, tokens).speed_up for tokens in used]
            if min(speed_ups) <= 1:
                break
            exact = replace(setting, exact_up_to=used[0] - 1)
            found.append(Candidate(exact, self._mean(speed_ups)))
        return found

    def _least_budget(self, family: Family, tokens: int, start: int) -> int:
        """Place of the least budget, from a place on, that reaches the target on one document."""
        return bisect_left(
            self._budgets,
            True,
            lo=start,
            key=lambda budget: self._reaches(Setting(family, budget), tokens, "glance"),
        )

    def _settled(self, setting: Setting) -> Setting | None:
        """The setting with the least budget nearby that reaches the target on all documents."""

        def suits(place: int) -> bool:
            moved = replace(setting, budget=self._budgets[place])
            return all(self._reaches(moved, tokens, "search") for tokens in self._used(moved))

        place = self._budgets.index(setting.budget)
        for _ in range(_MOVES):
            if not suits(place):
                place += 1
                if place == len(self._budgets):
                    return None
            elif place and suits(place - 1):
                place -= 1
            else:
                break
        return replace(setting, budget=self._budgets[place]) if suits(place) else None

    def _exact_where_it_pays(self, setting: Setting) -> Setting:
        """Looks between the lengths, and below the shortest, where the setting begins to gain."""
        (first, *_) = self._used(setting)
        below = max((one for one in self._lengths if one < first), default=0)
        tokens = first // 2
        while tokens > max(below, _SHORTEST):
            shorter = replace(setting, exact_up_to=tokens - 1)
            gains = self._time(shorter, tokens).speed_up > 1
            if not gains or not self._reaches(shorter, tokens, "search"):
                break
            setting = shorter
            tokens //= 2
        return setting

    def _confirm(self, setting: Setting) -> None:
        """Measures a setting on held-out documents, and others in its place as long as it fails."""
        place = self._budgets.index(setting.budget)
        last = min(place + _VETOES, len(self._budgets) - 1)
        while True:
            self._row(setting)
            if slow := self._too_slow(setting):
                longer = [tokens for tokens in self._lengths if tokens > max(slow)]
                if not longer:
                    return
                setting = replace(setting, exact_up_to=longer[0] - 1)
            elif self._is_close(setting) or place == last:
                return
            else:
                place += 1
                setting = replace(setting, budget=self._budgets[place])

    def _around(self, best: Setting | None, gaining: list[Family]) -> list[Setting]:
        """Settings that show what less and more budget would give."""
        if best is not None:
            place = self._budgets.index(best.budget)
            places = {max(0, place - 3), min(place + 3, len(self._budgets) - 1)}
            return [replace(best, budget=self._budgets[one]) for one in sorted(places)]
        if not self._families:
            return []
        family = gaining[0] if gaining else max(self._families, key=self._speed_up_of_least)
        count = len(self._budgets)
        return [Setting(family, self._budgets[at]) for at in sorted({0, count // 2, count - 1})]

    def _speed_up_of_least(self, family: Family) -> float:
        """That of a family's least budget at the greatest length."""
        return self._time(Setting(family, self._budgets[0]), self._lengths[-1]).speed_up

    def _best(self) -> Setting | None:
        """The fastest that was measured on held-out documents, gains and reaches the target."""
        good = [
            setting
            for setting, row in self._rows.items()
            if row.speed_up >= GAIN and not self._too_slow(setting) and self._is_close(setting)
        ]
        return max(good, key=lambda one: self._rows[one].speed_up, default=None)

    def _frontier(self, best: Setting | None) -> list[Row]:
        rows = sorted(
            self._rows.items(), key=lambda one: (one[1].speed_up, one[1].closeness), reverse=True
        )
        found: list[Row] = []
        for setting, row in rows:
            if setting == best or all(row.closeness > one.closeness for one in found):
                found.append(row)
        return found

    def _row(self, setting: Setting) -> Row:
        """Measures a setting as it will be used: at every length, with care, held out."""
        if setting not in self._rows:
            lengths = tuple(
                AtLength(
                    tokens,
                    self._close(setting, tokens, "held out"),
                    self._time(setting, tokens, careful=True),
                )
                for tokens in self._lengths
            )
            self._rows[setting] = Row(setting.options, lengths)
        return self._rows[setting]

    def _too_slow(self, setting: Setting) -> list[int]:
        """Lengths at which a measured setting approximates, and gains nothing."""
        row = self._rows[setting]
        return [
            one.tokens
            for one in row.lengths
            if one.tokens in self._used(setting) and one.times.speed_up <= 1
        ]

    def _is_close(self, setting: Setting) -> bool:
        """Whether a setting that was measured reaches the target on both halves of the text."""
        return self._rows[setting].closeness >= self._target and all(
            self._reaches(setting, tokens, "search") for tokens in self._used(setting)
        )

    def _used(self, setting: Setting) -> list[int]:
        """Lengths at which a setting approximates."""
        return [tokens for tokens in self._lengths if tokens > setting.exact_up_to]

    def _mean(self, speed_ups: list[float]) -> float:
        """Over all lengths: those that have none stay exact."""
        return geometric_mean([*speed_ups, *[1.0] * (len(self._lengths) - len(speed_ups))])

    def _reaches(self, setting: Setting, tokens: int, part: Part) -> bool:
        return self._close(setting, tokens, part) >= self._target

    def _close(self, setting: Setting, tokens: int, part: Part) -> float:
        key = (self._at(setting, tokens), tokens, part)
        if key not in self._closeness:
            self._closeness[key] = self._bench.closeness(*key)
        return self._closeness[key]

    def _time(self, setting: Setting, tokens: int, careful: bool = False) -> Times:
        key = (self._at(setting, tokens), tokens, careful)
        if key not in self._times:
            self._times[key] = self._bench.times(*key)
        return self._times[key]

    def _at(self, setting: Setting, tokens: int) -> Setting:
        """What a setting is at one length, so that nothing is measured twice."""
        if tokens > setting.exact_up_to:
            return replace(setting, exact_up_to=0)
        return Setting(self._families[0], self._budgets[0], exact_up_to=tokens)


def _named(family: Family) -> str:
    words = [f"blocks of {family.block_size}"]
    if family.coarse_key_size:
        words.append(f"cells of {family.coarse_key_size}")
    if family.salient_keys:
        words.append(f"{family.salient_keys} salient keys")
    if family.selection == "global":
        words.append("chosen globally")
    return ", ".join(words)
