"""How cost grows with length."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .results import Direction, Timing

FEWEST = 3  # lengths: through two points goes any line


@dataclass(frozen=True)
class Growth:
    """Cost as a power of the length: exponent 1 is linear, 2 quadratic.

    Attributes:
        method: its label.
        direction: of the step.
        tokens: lengths that the exponents are fitted over, ascending.
        time: exponent of the median time.
        memory: exponent of the peak memory, None unless it was measured at each of these lengths.
    """

    method: str
    direction: Direction
    tokens: tuple[int, ...]
    time: float
    memory: float | None


def growth(timings: Iterable[Timing], method: str, direction: Direction) -> Growth | None:
    """Fits one method's exponents, per sequence; None if fewer than `FEWEST` lengths are there.

    Only lengths with the same parameters are comparable. Where a method was measured with several,
    the exponents are those of the parameters that most lengths have, the longer ones if equal.
    """
    by_params: dict[str, list[Timing]] = {}
    for timing in timings:
        if (timing.method, timing.direction) == (method, direction):
            by_params.setdefault(repr(sorted(timing.params.items())), []).append(timing)
    fitted = max(by_params.values(), key=_most, default=[])
    if len(fitted) < FEWEST:
        return None
    fitted = sorted(fitted, key=lambda timing: timing.tokens)
    tokens = tuple(timing.tokens for timing in fitted)
    peaks = [timing.bytes_each for timing in fitted if timing.bytes_each is not None]
    return Growth(
        method=method,
        direction=direction,
        tokens=tokens,
        time=fitted_exponent(tokens, [timing.seconds_each for timing in fitted]),
        memory=fitted_exponent(tokens, peaks) if len(peaks) == len(tokens) else None,
    )


def _most(timings: Sequence[Timing]) -> tuple[int, int]:
    return len(timings), max(timing.tokens for timing in timings)


def fitted_exponent(tokens: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the least-squares line through log(cost) over log(tokens).

    Args:
        tokens: two or more different positive lengths.
        costs: as many positive numbers.
    """
    x = [math.log(length) for length in tokens]
    y = [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - mean_x) ** 2 for a in x)
