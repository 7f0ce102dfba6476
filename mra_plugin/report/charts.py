"""What the plots show: values only, for `drawing` to draw."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from . import numbers
from .closeness_sections import with_additions
from .results import DIRECTIONS, ClosenessResult, Results, RetrievalResult, Timing
from .retrieval_sections import collections
from .style import ADDITIONS, ordered
from .timing_sections import reference

Unit = Literal["tokens", "seconds", "bytes", "times", "share", "error", "score"]


@dataclass(frozen=True)
class Line:
    """One method's points, by ascending x, with their ranges where there are any."""

    method: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    ranges: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Panel:
    """Lines in one pair of axes."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Axis:
    """What an axis shows; its unit decides scale and ticks."""

    label: str
    unit: Unit


@dataclass(frozen=True)
class Chart:
    """A plot of one or more panels with the same axes.

    Attributes:
        name: of its file.
        title: says what is plotted.
        x: of all panels.
        y: of all panels.
        panels: side by side.
        text: what the plot shows, for who can't see it.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    panels: tuple[Panel, ...]
    text: str

    @property
    def methods(self) -> list[str]:
        """Every method that has a line, in the order of the legend."""
        return ordered(line.method for panel in self.panels for line in panel.lines)


def charts(results: Results) -> list[Chart]:
    """The plots that there are figures for."""
    weighed = [timing for timing in results.attention if timing.peak_bytes is not None]
    tokens = Axis("tokens", "tokens")
    cost = Axis("multiply-adds, share of exact attention's", "share")
    density = Axis("density: share of pairs that are exact", "share")
    error = Axis("relative error of the output", "error")
    whole = [one for one in results.closeness if one.method not in ADDITIONS]
    dense = [one for one in whole if one.density]
    found = [
        _chart(
            "ranking",
            "Searching: how well documents are found",
            tokens,
            Axis("mean reciprocal rank (MRR)", "score"),
            _by_collection(results.retrieval, lambda one: float(one.tokens), lambda one: one.mrr),
        ),
        _chart(
            "ranking-speed",
            "Searching: what speed costs in ranking",
            Axis("times as fast as exact attention in reading documents", "times"),
            Axis("MRR, share of exact attention's", "score"),
            _by_collection(
                results.retrieval, lambda one: one.speed_up.median, lambda one: one.kept
            ),
        ),
        _chart(
            "speed-up",
            "Attention alone: speed-up",
            tokens,
            _times_as_fast(results.attention),
            _by_direction(results.attention, lambda timing: timing.speed_up.median, ranges=True),
        ),
        _chart(
            "time",
            "Attention alone: time against length",
            tokens,
            Axis("median time of a step, per sequence", "seconds"),
            _by_direction(results.attention, lambda timing: timing.seconds_each),
        ),
        _chart(
            "memory",
            "Attention alone: memory against length",
            tokens,
            Axis("most memory in use, per sequence", "bytes"),
            _by_direction(weighed, lambda timing: timing.bytes_each or 0.0),
        ),
        _chart(
            "layer-speed-up",
            "A whole encoder layer: speed-up",
            tokens,
            _times_as_fast(results.layer),
            _by_direction(results.layer, lambda timing: timing.speed_up.median, ranges=True),
        ),
        _chart(
            "error-cost",
            "Error against cost",
            cost,
            error,
            _by_tokens(whole, lambda one: one.relative_cost),
        ),
        _chart(
            "error-density",
            "Error against density",
            density,
            error,
            _by_tokens(dense, lambda one: one.density or 0.0),
        ),
        _chart(
            "error-cost-additions",
            "Error against cost: what each addition brings",
            cost,
            error,
            _by_tokens(with_additions(results.closeness), lambda one: one.relative_cost),
        ),
    ]
    return [chart for chart in found if chart.panels]


def _times_as_fast(timings: Sequence[Timing]) -> Axis:
    names = {timing.reference for timing in timings}
    return Axis(
        f"times as fast as {reference(timings) if len(names) == 1 else 'the fastest exact'}",
        "times",
    )


def _by_direction(
    timings: Iterable[Timing], value: Callable[[Timing], float], ranges: bool = False
) -> list[Panel]:
    ascending = sorted(timings, key=lambda timing: timing.tokens)
    panels = []
    for direction in DIRECTIONS:
        lines = []
        for method in ordered(timing.method for timing in ascending):
            own = [t for t in ascending if (t.method, t.direction) == (method, direction)]
            spans = [(t.speed_up.least, t.speed_up.greatest) for t in own if ranges]
            lines.append(
                Line(
                    method,
                    tuple(float(timing.tokens) for timing in own),
                    tuple(value(timing) for timing in own),
                    tuple(spans),
                )
            )
        panels.append(Panel(direction, tuple(line for line in lines if line.x)))
    return [panel for panel in panels if panel.lines]


def _by_tokens(
    found: Iterable[ClosenessResult], x: Callable[[ClosenessResult], float]
) -> list[Panel]:
    known = sorted((one for one in found if one.relative_error is not None), key=x)
    panels = []
    for tokens in sorted({one.tokens for one in known}):
        lines = []
        for method in ordered(one.method for one in known):
            own = [one for one in known if (one.method, one.tokens) == (method, tokens)]
            errors = tuple(one.relative_error for one in own if one.relative_error is not None)
            lines.append(Line(method, tuple(map(x, own)), errors))
        panels.append(Panel(f"{tokens} tokens", tuple(line for line in lines if line.x)))
    return panels


def _by_collection(
    found: Iterable[RetrievalResult],
    x: Callable[[RetrievalResult], float],
    y: Callable[[RetrievalResult], float],
) -> list[Panel]:
    ascending = sorted(found, key=x)
    panels = []
    for collection in sorted(collections(ascending)):
        here = [one for one in ascending if one.collection == collection]
        lines = []
        for method in ordered(one.method for one in here):
            own = [one for one in here if one.method == method]
            lines.append(Line(method, tuple(map(x, own)), tuple(map(y, own))))
        panels.append(Panel(collection, tuple(lines)))
    return panels


def _chart(name: str, title: str, x: Axis, y: Axis, panels: list[Panel]) -> Chart:
    formats = {
        "seconds": numbers.seconds,
        "bytes": numbers.memory,
        "times": numbers.times,
        "error": numbers.error,
        "score": numbers.error,
    }
    ends = "; ".join(
        f"{panel.title}, at the right end: "
        + ", ".join(f"{line.method} {formats[y.unit](line.y[-1])}" for line in panel.lines)
        for panel in panels
    )
    return Chart(name, title, x, y, tuple(panels), f"{title}. {y.label} over {x.label}. {ends}.")
