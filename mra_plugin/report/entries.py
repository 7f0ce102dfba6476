"""Single measurements, read from the JSON of a result file."""

from typing import cast

from .fields import Fields
from .results import DIRECTIONS, MRA, Closeness, Direction, NotRun, Span, Stage, Timing


def timing(extra: Fields) -> Timing:
    """A benchmark of kind "attention" or "layer", from its extra_info."""
    return Timing(
        method=extra.text("method"),
        params=dict(extra.inner("params").values),
        tokens=extra.count("tokens"),
        direction=cast(Direction, extra.text("direction", among=DIRECTIONS)),
        shape=extra.shape("shape"),
        reference=extra.text("reference"),
        seconds=extra.number("seconds"),
        speed_up=Span(
            extra.number("speed_up"),
            extra.number("speed_up_from"),
            extra.number("speed_up_to"),
        ),
        peak_bytes=_bytes(extra, "peak_bytes"),
        reference_peak_bytes=_bytes(extra, "reference_peak_bytes"),
        relative_error=extra.number_if_any("relative_error"),
        cosine=extra.number_if_any("cosine"),
    )


def closeness(extra: Fields) -> Closeness:
    """A benchmark of kind "closeness", from its extra_info."""
    return Closeness(
        method=extra.text("method"),
        tokens=extra.count("tokens"),
        model=extra.text("model"),
        text=extra.text("text"),
        budget=extra.count("budget"),
        budget_unit=extra.text("budget_unit"),
        density=extra.number_if_any("density"),
        relative_cost=extra.number("relative_cost"),
        relative_error=extra.number_if_any("relative_error"),
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


def stage(entry: Fields) -> Stage:
    """An item of the list "stages"."""
    return Stage(
        method=entry.text_if_any("method") or MRA,
        tokens=entry.count("tokens"),
        direction=entry.text("direction"),
        stage=entry.text("stage"),
        seconds=entry.number("seconds"),
        share=entry.number("share"),
        floor_bytes_seconds=entry.number_if_any("floor_bytes_seconds"),
        floor_operations_seconds=entry.number_if_any("floor_operations_seconds"),
    )


def _bytes(extra: Fields, name: str) -> int | None:
    value = extra.number_if_any(name)
    # No allocation at all is no measurement: it has no ratio and no place on a logarithmic axis.
    return round(value) if value is not None and value > 0 else None
