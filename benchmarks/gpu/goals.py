"""What MRA attention on an H100 is meant to reach, beside what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Times as fast as the fastest exact attention, in training, by length.
SPEED_UPS = {512: 1.0, 4096: 2.5, 16384: 8.0, 65536: 25.0}
OVER_ORIGINAL = {4096: 8.0}
MEMORY_OVER_FLASH = 1.25
GROWTH_FROM, GROWTH_TO, GROWTH = 4096, 65536, 1.3

# Other benchmarks have methods such as "mra per_row", at other sizes.
_MRA = re.compile(r"mra \d+x\d+")

Result = dict[str, Any]


@dataclass(frozen=True)
class Goal:
    """A goal, and what was measured of it."""

    name: str
    least: float | None
    most: float | None
    measured: float

    @property
    def met(self) -> bool:
        """Whether the measured value lies where it should."""
        if self.least is not None and self.measured < self.least:
            return False
        return self.most is None or self.measured <= self.most

    def __str__(self) -> str:
        wanted = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{self.name}: {self.measured:.2f}, {wanted}: {'met' if self.met else 'NOT MET'}"


def goals_of(results: list[Result]) -> list[Goal]:
    """Every goal that these results say something about.

    Args:
        results: the extra_info of attention benchmarks; those of training on CUDA devices count.
    """
    found: list[Goal] = []
    trained = [
        one
        for one in results
        if one["direction"] == "training" and one["device"].startswith("cuda")
    ]
    for channels in sorted({one["shape"][-1] for one in trained}):
        same = [one for one in trained if one["shape"][-1] == channels]
        for one in same:
            if _MRA.fullmatch(one["method"]):
                found += _of_one(one, same)
        found += _growth(same)
    return found


def _of_one(one: Result, others: list[Result]) -> Iterator[Goal]:
    tokens, place = one["tokens"], _place(one)
    if tokens in SPEED_UPS:
        name = f"{place}, times as fast as {one['reference']}"
        yield Goal(name, SPEED_UPS[tokens], None, one["speed_up"])
    for other in others:
        if other["tokens"] != tokens:
            continue
        if other["method"] == "original" and tokens in OVER_ORIGINAL:
            ratio = other["seconds"] / one["seconds"]
            yield Goal(
                f"{place}, times as fast as the original", OVER_ORIGINAL[tokens], None, ratio
            )
        if other["method"] == "flash" and other["peak_bytes"] and one["peak_bytes"]:
            # Beyond the inputs, which is the stricter way to count.
            ratio = one["peak_bytes"] / other["peak_bytes"]
            yield Goal(f"{place}, peak memory over flash's", None, MEMORY_OVER_FLASH, ratio)


def _growth(results: list[Result]) -> Iterator[Goal]:
    short, long = (
        {one["method"]: one for one in results if one["tokens"] == tokens}
        for tokens in (GROWTH_FROM, GROWTH_TO)
    )
    for method in short:
        if _MRA.fullmatch(method) and method in long:
            ratio = long[method]["seconds"] / short[method]["seconds"]
            name = f"{_place(long[method])}, time over that at {GROWTH_FROM} tokens"
            yield Goal(name, None, GROWTH, ratio)


def _place(one: Result) -> str:
    return f"{one['method']}, {one['tokens']} tokens, {one['shape'][-1]} channels"
