"""The parts of a report, by name."""

from collections.abc import Callable, Iterable, Sequence

from . import (
    closeness_sections,
    distillations,
    encoder_sections,
    numbers,
    picture_sections,
    retrieval_sections,
    timing_sections,
)
from .results import NotRun, Results, Stage
from .tables import Section, Table, of_tables


def section(name: str, results: Results) -> Section | None:
    """The part of a report called ``name``, one of `NAMES`; None if nothing for it was measured."""
    return _SECTIONS[name](results)


def _stages(results: Results) -> Section | None:
    table = Table(
        "Time of each stage of a step, its share of the whole, and the least time that moving its "
        "bytes and doing its operations would take on this device",
        (
            "stage",
            "method",
            "tokens",
            "direction",
            "time",
            "share",
            "bytes alone",
            "operations alone",
        ),
        tuple(
            (
                one.stage,
                one.method,
                str(one.tokens),
                one.direction,
                numbers.seconds(one.seconds),
                numbers.share(one.share),
                numbers.seconds(one.floor_bytes_seconds),
                numbers.seconds(one.floor_operations_seconds),
            )
            for one in results.stages
        ),
        frozenset({0, 1, 3}),
    )
    found = [table] if results.stages else []
    return of_tables("stages", "Where the time goes", _best(results.stages), found)


def _best(stages: Sequence[Stage]) -> str:
    for one in stages:
        if one.bandwidth and one.bandwidth_all_threads and one.peak:
            return (
                f"In one thread, which moves {one.bandwidth / 1e9:.1f} GB/s (all threads: "
                f"{one.bandwidth_all_threads / 1e9:.1f} GB/s) of large arrays and does "
                f"{one.peak / 1e9:.0f} GFLOP/s of products in its nearest cache."
            )
    return ""


def _not_run(results: Results) -> Section | None:
    # Lengths and directions that share a reason share a row.
    together: dict[tuple[str, str, str], list[NotRun]] = {}
    for one in results.not_run:
        together.setdefault((one.method, one.kind, one.reason), []).append(one)
    table = Table(
        "Each with its reason",
        ("method", "comparison", "direction", "tokens", "reason"),
        tuple(
            (
                method,
                kind,
                _listed(one.direction for one in group),
                _listed(one.tokens for one in group),
                reason,
            )
            for (method, kind, reason), group in together.items()
        ),
        frozenset(range(5)),
    )
    return of_tables("not_run", "What could not run", "", [table] if together else [])


def _machine(results: Results) -> Section:
    parts = [results.title]
    if results.capability:
        parts.append(results.capability)
    for source in dict.fromkeys(
        (source.versions, source.date, source.commit) for source in results.sources
    ):
        versions, date, commit = source
        named = ", ".join(f"{name} {version}" for name, version in versions)
        parts += [part for part in (named, date, commit and f"commit {commit}") if part]
    return Section("machine", "Machine and versions", "; ".join(dict.fromkeys(parts)) + ".")


_SECTIONS: dict[str, Callable[[Results], Section | None]] = {
    "retrieval": retrieval_sections.retrieval,
    "retrieval_all": retrieval_sections.retrieval_all,
    "compare": encoder_sections.compare,
    "settings": encoder_sections.settings,
    "speed": timing_sections.speed,
    "speed_all": timing_sections.speed_all,
    "time": timing_sections.time,
    "memory": timing_sections.memory,
    "memory_all": timing_sections.memory_all,
    "growth": timing_sections.growth_exponents,
    "layer": timing_sections.layer,
    "layer_memory": timing_sections.layer_memory,
    "busy": timing_sections.busy,
    "closeness": closeness_sections.closeness,
    "additions": closeness_sections.additions,
    "budget": closeness_sections.budget,
    "pictures": picture_sections.pictures,
    "distillation": distillations.distillation,
    "stages": _stages,
    "not_run": _not_run,
    "machine": _machine,
}
NAMES = tuple(_SECTIONS)


def _listed(values: Iterable[str | int | None]) -> str:
    found = dict.fromkeys(values)
    return "all" if None in found else ", ".join(map(str, found))
