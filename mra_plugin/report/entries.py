"""Single measurements and where they come from, read from the JSON of a result file."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from .fields import Fields
from .results import (
    DIRECTIONS,
    BusyTiming,
    ClosenessResult,
    Direction,
    NotRun,
    PictureResult,
    RetrievalResult,
    Source,
    Span,
    Stage,
    Timing,
)


def source(path: Path, date: str | None, versions: Fields, commit: str | None = None) -> Source:
    """Where figures come from.

    Args:
        path: the file.
        date: when it was made, in ISO format, if known.
        versions: by package; None for what was not there.
        commit: of this repository, if known.
    """
    return Source(
        file=path.name,
        date=(date or "date unknown").partition("T")[0],
        commit=commit,
        versions=tuple((name, str(one)) for name, one in versions.values.items() if one),
    )


def timing(extra: Fields) -> Timing:
    """A benchmark of kind "attention", "layer" or "busy", from its extra_info."""
    return Timing(
        method=extra.label("method"),
        params=dict(extra.inner("params").values),
        tokens=extra.count("tokens"),
        direction=cast(Direction, extra.text("direction", among=DIRECTIONS)),
        shape=extra.shape("shape"),
        reference=extra.label("reference"),
        seconds=extra.number("seconds"),
        speed_up=_speed_up(extra),
        peak_bytes=_bytes(extra, "peak_bytes"),
        reference_peak_bytes=_bytes(extra, "reference_peak_bytes"),
    )


def busy(extra: Fields) -> BusyTiming:
    """A benchmark of kind "busy", from its extra_info."""
    return BusyTiming(extra.count_or_zero("busy_processes"), timing(extra))


def closeness(extra: Fields) -> ClosenessResult:
    """A benchmark of kind "closeness", from its extra_info."""
    return ClosenessResult(
        method=extra.label("method"),
        tokens=extra.count("tokens"),
        model=extra.text("model"),
        text=extra.text("text"),
        budget=extra.count("budget"),
        budget_unit=extra.text("budget_unit"),
        density=extra.number_if_any("density", least=0),
        relative_cost=extra.number("relative_cost"),
        relative_error=extra.number_if_any("relative_error", least=0),
        cosine=extra.number_if_any("cosine"),
        layers=extra.count("layers"),
    )


def retrieval(extra: Fields) -> RetrievalResult:
    """A benchmark of kind "retrieval", from its extra_info."""
    return RetrievalResult(
        method=extra.label("method"),
        params=dict(extra.inner("params").values),
        tokens=extra.count("tokens"),
        model=extra.text("model"),
        collection=extra.label("collection"),
        half=extra.text("half"),
        documents=extra.count("documents"),
        full_documents=extra.count_or_zero("full_documents"),
        reference=extra.label("reference"),
        seconds=extra.number("seconds"),
        speed_up=_speed_up(extra),
        mrr=extra.number("mrr"),
        reference_mrr=extra.number("reference_mrr"),
        first_hits=extra.count_or_zero("first_hits"),
        overlap=extra.number_if_any("overlap", least=0),
        vector_cosine=extra.number_if_any("vector_cosine"),
    )


def picture(extra: Fields) -> PictureResult:
    """A benchmark of kind "picture", from its extra_info."""
    return PictureResult(
        what=extra.label("what"),
        grid=extra.shape("grid"),
        method=extra.label("method"),
        params=dict(extra.inner("params").values),
        tokens=extra.count("tokens"),
        reference=extra.label("reference"),
        speed_up=_speed_up(extra),
        relative_error=extra.number_if_any("relative_error", least=0),
        cosine=extra.number_if_any("cosine"),
    )


def not_run(entry: Fields) -> NotRun:
    """An item of the list "not_run"."""
    return NotRun(
        kind=entry.text("kind"),
        method=entry.text("method"),
        direction=entry.text_if_any("direction"),
        tokens=entry.count_if_any("tokens"),
        reason=entry.text("reason"),
    )


def stages(extra: Fields) -> Iterator[Stage]:
    """The stages of a benchmark of kind "stages", from its extra_info."""
    for one in extra.objects("stages"):
        yield Stage(
            method=extra.label("method"),
            tokens=extra.count("tokens"),
            direction=extra.text("direction", among=DIRECTIONS),
            stage=one.label("stage"),
            seconds=one.number("seconds"),
            share=one.number("share"),
            floor_bytes_seconds=one.number_if_any("floor_bytes_seconds"),
            floor_operations_seconds=one.number_if_any("floor_operations_seconds"),
            bandwidth=extra.number_if_any("bandwidth"),
            bandwidth_all_threads=extra.number_if_any("bandwidth_all_threads"),
            peak=extra.number_if_any("peak"),
        )


def _speed_up(extra: Fields) -> Span:
    names = ("speed_up", "speed_up_from", "speed_up_to")
    return Span(*map(extra.number, names))


def _bytes(extra: Fields, name: str) -> int | None:
    value = extra.number_if_any(name)
    # No allocation at all is no measurement: it has no ratio and no place on a logarithmic axis.
    return round(value) or None if value is not None and value > 0 else None
