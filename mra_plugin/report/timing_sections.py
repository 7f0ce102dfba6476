"""What the timings show: speed, memory and growth of attention alone, speed of a whole layer."""

from collections.abc import Callable, Sequence

from . import numbers
from .growth import Growth, growth
from .results import DIRECTIONS, Direction, Results, Timing
from .style import ordered
from .tables import Section, Table, beside_exact, by_length, of_tables

RANGE = "median (range over the rounds)"


def speed(results: Results) -> Section | None:
    """MRA's speed-up, in one short table."""
    caption = f"Times as fast as {reference(results.attention)}: {RANGE}"
    table = beside_exact(
        results.attention, _columns(mra_methods(results.attention)), caption, _speed_up
    )
    return of_tables("speed", "Attention alone: speed", _setting(results), [table])


def speed_all(results: Results) -> Section | None:
    """Every method's speed-up."""
    found = _speed_ups(results.attention)
    return of_tables("speed_all", "Attention alone: speed", _setting(results), found)


def time(results: Results) -> Section | None:
    """Every method's time."""
    found = _per_direction(
        results.attention,
        "median time of a step, per sequence",
        lambda timing: numbers.seconds(timing.seconds_each),
    )
    return of_tables("time", "Attention alone: time", _setting(results), found)


def memory(results: Results) -> Section | None:
    """MRA's memory beside exact attention's, in one short table."""
    weighed = _weighed(results.attention)
    exact = {timing.reference for timing in weighed}
    columns = _columns(ordered([*exact, *mra_methods(results.attention)]))
    table = beside_exact(weighed, columns, f"M{_peaks(weighed)[1:]}", _peak)
    return of_tables("memory", "Attention alone: memory", _setting(results), [table])


def memory_all(results: Results) -> Section | None:
    """Every method's memory."""
    weighed = _weighed(results.attention)
    found = _per_direction(weighed, _peaks(weighed), _peak)
    return of_tables("memory_all", "Attention alone: memory", _setting(results), found)


def growth_exponents(results: Results) -> Section | None:
    """The power of the length that each method's time and memory grow with."""
    rows = []
    for method in ordered(timing.method for timing in results.attention):
        fits = [growth(results.attention, method, direction) for direction in DIRECTIONS]
        if any(fits):
            costs = [(fit.time, fit.memory) if fit else (None, None) for fit in fits]
            exponents = (numbers.exponent(cost) for both in costs for cost in both)
            rows.append((method, *exponents, _fitted_over(fits)))
    titles = (f"{direction}: {cost}" for direction in DIRECTIONS for cost in ("time", "memory"))
    table = Table(
        "Power of the length that cost grows with: 1 is linear, 2 quadratic "
        "(least squares between the logarithms)",
        ("method", *titles, "fitted over tokens"),
        tuple(rows),
        frozenset({0, 5}),
    )
    found = [table] if rows else []
    return of_tables("growth", "Attention alone: growth", _setting(results), found)


def layer(results: Results) -> Section | None:
    """Every method's speed-up in a whole encoder layer."""
    found = _speed_ups(results.layer)
    return of_tables("layer", "A whole encoder layer: speed", "", found)


def layer_memory(results: Results) -> Section | None:
    """Every method's memory in a whole encoder layer."""
    weighed = _weighed(results.layer)
    found = _per_direction(weighed, _peaks(weighed), _peak)
    return of_tables("layer_memory", "A whole encoder layer: memory", "", found)


def busy(results: Results) -> Section | None:
    """Every method's speed-up while other processes keep the machine busy."""
    together: dict[int, list[Timing]] = {}
    for one in results.busy:
        together.setdefault(one.processes, []).append(one.timing)
    found = []
    for processes, timings in sorted(together.items()):
        others = f"{processes} busy process{'es' * (processes > 1)}"
        beside = f"Beside {others}" if processes else "Alone"
        caption = f"{beside}, times as fast as {reference(timings)} beside the same: {RANGE}"
        found += [by_length(timings, "forward", caption, _speed_up, timings[0].reference)]
    text = "Others keep the machine busy, each with products of matrices in one thread."
    return of_tables("busy", "Attention on a busy machine", text, found)


def reference(timings: Sequence[Timing]) -> str:
    """What these are compared with, in words."""
    names = ordered(timing.reference for timing in timings)
    if len(names) == 1:
        return names[0]
    return f"the fastest exact attention at each length ({' or '.join(names)})"


def _speed_ups(timings: Sequence[Timing]) -> list[Table | None]:
    caption = f"times as fast as {reference(timings)}: {RANGE}"
    names = {timing.reference for timing in timings}
    return _per_direction(
        timings, caption, _speed_up, without=names.pop() if len(names) == 1 else None
    )


def mra_methods(timings: Sequence[Timing]) -> list[str]:
    """The methods that are MRA-2; MRA-2-s is another approximation."""
    return [
        name
        for name in ordered(timing.method for timing in timings)
        if name.split()[0] == "mra" and "sparse" not in name
    ]


def _per_direction(
    timings: Sequence[Timing],
    caption: str,
    cell: Callable[[Timing], str],
    without: str | None = None,
) -> list[Table | None]:
    return [
        by_length(timings, direction, f"{direction.capitalize()}, {caption}", cell, without)
        for direction in DIRECTIONS
    ]


def _columns(methods: Sequence[str]) -> list[tuple[str, Direction, str]]:
    return [
        (name, direction, f"{direction}, {name}") for direction in DIRECTIONS for name in methods
    ]


def _weighed(timings: Sequence[Timing]) -> list[Timing]:
    return [timing for timing in timings if timing.peak_bytes is not None]


def _peaks(timings: Sequence[Timing]) -> str:
    return (
        f"most memory in use at a time, per sequence (as many times that of {reference(timings)})"
    )


def _setting(results: Results) -> str:
    shapes = {timing.shape[1::2] for timing in results.attention if len(timing.shape) == 4}
    if len(shapes) != 1:
        return ""
    ((heads, channels),) = shapes
    return f"{heads} heads of {channels} channels, {results.dtype}."


def _speed_up(timing: Timing) -> str:
    return numbers.ratio_with_range(timing.speed_up)


def _peak(timing: Timing) -> str:
    own, exact = timing.peak_bytes, timing.reference_peak_bytes
    if own is None or exact is None or timing.method == timing.reference:
        return numbers.memory(timing.bytes_each)
    return f"{numbers.memory(timing.bytes_each)} ({numbers.times(own / exact)})"


def _fitted_over(fits: list[Growth | None]) -> str:
    over = {fit.direction: numbers.lengths(fit.tokens) for fit in fits if fit}
    if len(set(over.values())) == 1:
        return next(iter(over.values()))
    return "; ".join(f"{direction}: {tokens}" for direction, tokens in over.items())
