"""What attention of pictures and clips shows: time and closeness, in rows and in tiles."""

from collections.abc import Sequence

from . import numbers
from .results import PictureResult, Results
from .style import ordered
from .tables import Section, Table, of_tables

_TEXT = (
    "Tokens of smooth pictures and clips, attended to with exact attention and with MRA. Tiles: "
    "tokens are ordered for attention alone, so that a block is a patch and no strip of a line; "
    "what that takes is in the time. Speed-up: times as fast as exact attention, median (range "
    "over the rounds)."
)


def pictures(results: Results) -> Section | None:
    """Every method on every grid, a table for attention alone and one for each kind of model."""
    found = results.pictures
    kinds = dict.fromkeys(one.what for one in found)
    tables = [_table(kind, [one for one in found if one.what == kind]) for kind in kinds]
    return of_tables("pictures", "Pictures and clips", _TEXT, tables)


def _table(what: str, found: Sequence[PictureResult]) -> Table:
    methods = ordered(one.method for one in found)
    rows = sorted(found, key=lambda one: (one.tokens, one.grid, methods.index(one.method)))
    titles = {
        "attention": "Attention alone",
        "block": "A diffusion transformer of one block",
        "DINOv3": "A DINOv3 of the base size, two layers of it",
        "SigLIP": "A SigLIP of the base size, two layers of it",
    }
    return Table(
        titles.get(what, what.capitalize()),
        ("grid", "tokens", "method", "speed-up", "relative error", "cosine"),
        tuple(
            (
                " x ".join(map(str, one.grid)),
                str(one.tokens),
                one.method,
                numbers.ratio_with_range(one.speed_up),
                numbers.error(one.relative_error),
                numbers.error(one.cosine),
            )
            for one in rows
        ),
        frozenset({0, 2}),
    )
