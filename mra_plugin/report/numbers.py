"""How numbers read, in tables, sentences and plots alike."""

from collections.abc import Sequence

from .results import Span

NOTHING = "n/a"
SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def ratio(value: float | None) -> str:
    """0.52, 6.2, 120: as many times."""
    if value is None:
        return NOTHING
    if value < 0.0995:
        return f"{value:.2g}"
    return f"{value:.{2 if value < 0.995 else 1 if value < 99.95 else 0}f}"


def times(value: float) -> str:
    """0.52x: a ratio that stands beside a figure of another kind."""
    return f"{ratio(value)}x"


def ratio_with_range(span: Span) -> str:
    """6.2 (5.5 to 7.1): the median, and the least and greatest."""
    return f"{ratio(span.median)} ({ratio(span.least)} to {ratio(span.greatest)})"


def counted(count: int, what: str) -> str:
    """1 step, 2 steps."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def seconds(value: float | None) -> str:
    """12.3 ms, with the unit that suits it."""
    return _with_unit(value, SECONDS)


def memory(value: float | None) -> str:
    """12.3 MB, with the unit that suits it, in powers of ten."""
    return _with_unit(value, BYTES)


def share(value: float | None) -> str:
    """6.2%: a part of the whole, or the whole and more."""
    if value is None:
        return NOTHING
    percent = 100 * value
    return f"{percent:.{2 if percent < 0.995 else 1 if percent < 9.95 else 0}f}%"


def error(value: float | None) -> str:
    """0.042: a relative error, or a cosine."""
    return NOTHING if value is None else f"{value:.3f}"


def exponent(value: float | None) -> str:
    """1.04: the power of the length that a cost grows with."""
    return NOTHING if value is None else f"{value:.2f}"


def lengths(tokens: Sequence[int]) -> str:
    """512 to 16384: the least and the greatest of ascending lengths, and how many there are."""
    if len(tokens) == 1:
        return str(tokens[0])
    return f"{tokens[0]} to {tokens[-1]} ({len(tokens)} lengths)"


def tick(value: float, units: Sequence[tuple[float, str]]) -> str:
    """20 ms: a round number on an axis, in `SECONDS` or `BYTES`."""
    number, unit = _scaled(value, units)
    return f"{number:g} {unit}"


def _with_unit(value: float | None, units: Sequence[tuple[float, str]]) -> str:
    if value is None:
        return NOTHING
    number, unit = _scaled(value, units)
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {unit}"


def _scaled(value: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    # The largest unit of which there is one or more, when rounded; the smallest at the least.
    scale, unit = next((one for one in units if value >= 0.9995 * one[0]), units[-1])
    return value / scale, unit
