"""Tables of results, as text that is ready to be shown."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from . import numbers
from .results import Direction, Timing
from .style import ordered


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column names each row.

    Attributes:
        caption: what the table shows, with units; a sentence without its full stop.
        header: one title for each column.
        rows: one text for each column.
        words: the columns that hold words, which stand left; numbers stand right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: what files ask for it by.
        title: its heading.
        text: what stands before the tables; may be empty.
        tables: none in a section that is all text.
    """

    name: str
    title: str
    text: str
    tables: tuple[Table, ...] = ()


def of_tables(name: str, title: str, text: str, found: Iterable[Table | None]) -> Section | None:
    """A section of the tables that there are; None if there is none."""
    there = tuple(table for table in found if table is not None)
    return Section(name, title, text, there) if there else None


def by_length(
    timings: Iterable[Timing],
    direction: Direction,
    caption: str,
    cell: Callable[[Timing], str],
    without: str | None = None,
) -> Table | None:
    """One row for each method and one column for each length; None if nothing was measured.

    Args:
        timings: what was measured.
        direction: which of it to show.
        caption: of the table.
        cell: what to show of one measurement.
        without: a method to leave out: a reference in a table of ratios to it.
    """
    shown = {
        (timing.method, timing.tokens): cell(timing)
        for timing in timings
        if timing.direction == direction and timing.method != without
    }
    if not shown:
        return None
    tokens = sorted({length for _, length in shown})
    return Table(
        caption,
        ("method", *(f"{length} tokens" for length in tokens)),
        tuple(
            (method, *(shown.get((method, length), numbers.NOTHING) for length in tokens))
            for method in ordered(name for name, _ in shown)
        ),
    )


def beside_exact(
    timings: Sequence[Timing],
    columns: Sequence[tuple[str, Direction, str]],
    caption: str,
    cell: Callable[[Timing], str],
) -> Table | None:
    """One row for each length, and a column for each method and direction that was measured.

    Args:
        timings: what was measured.
        columns: method, direction and title of each column.
        caption: of the table.
        cell: what to show of one measurement.
    """
    found = {(timing.method, timing.direction, timing.tokens): timing for timing in timings}
    used = [column for column in columns if any(key[:2] == column[:2] for key in found)]
    tokens = sorted({key[2] for key in found if any(key[:2] == column[:2] for column in used)})
    if not tokens:
        return None
    rows = []
    for length in tokens:
        row = [found.get((method, direction, length)) for method, direction, _ in used]
        budgets = {
            str(one.params["block_per_row"])
            for one in row
            if one is not None and "block_per_row" in one.params
        }
        cells = (numbers.NOTHING if one is None else cell(one) for one in row)
        rows.append((str(length), ", ".join(sorted(budgets)) or numbers.NOTHING, *cells))
    header = ("tokens", "blocks per row", *(title for _, _, title in used))
    if all(row[1] == numbers.NOTHING for row in rows):
        header, rows = _without_column(header, 1), [_without_column(row, 1) for row in rows]
    return Table(caption, header, tuple(rows), frozenset())


def _without_column(row: tuple[str, ...], at: int) -> tuple[str, ...]:
    return row[:at] + row[at + 1 :]
