"""Files that `mra compare --json` writes, read into `Results`."""

from pathlib import Path

from mra_plugin.encoders.repetitions import Repetitions
from mra_plugin.errors import UserError

from .entries import source
from .fields import Fields
from .results import EncoderTiming, Results

_KEYS = frozenset({"model", "attention", "results"})


def is_comparison(whole: Fields) -> bool:
    """Whether a file comes from `mra compare`, by the names at its top level."""
    return whole.values.keys() >= _KEYS


def read_comparison(whole: Fields, path: Path) -> Results:
    """What a file of `mra compare` holds.

    Args:
        whole: the file.
        path: where it lies.

    Raises:
        UserError: something is missing or of the wrong kind, or nothing was compared.
    """
    rows = whole.objects("results")
    if not rows:
        raise UserError(f"{path} holds nothing to report: its 'results' are empty")
    remarks = _remarks(whole)
    return Results(
        machine=whole.text("device"),
        threads=None,  # the device's name says how many
        capability=None,
        dtype=whole.text("dtype"),
        sources=(source(path, whole.text_if_any("date"), whole.inner("versions")),),
        encoders=tuple(_timing(row, whole, remarks) for row in rows),
    )


def _remarks(whole: Fields) -> tuple[str, ...]:
    """What a reader should know of the inputs; older files without the field say nothing."""
    # The notes explain the command's own table, which has other columns: they are only checked.
    whole.texts("notes")
    repeated = whole.inner("repeated")
    if not repeated.values:
        return ()
    found = Repetitions(
        length=repeated.count("length"),
        positions=repeated.count_if_any("positions"),
        text=repeated.count_if_any("text"),
    )
    return tuple(found.sentences())


def _timing(row: Fields, whole: Fields, remarks: tuple[str, ...]) -> EncoderTiming:
    attention = row.text("attention")
    return EncoderTiming(
        model=whole.text("model"),
        text=whole.text("text"),
        exact=whole.text("exact"),
        attention=attention,
        params=dict(whole.inner("attention").inner(attention).values),
        remarks=remarks,
        tokens=row.count("tokens"),
        exact_seconds=row.inner("exact").number("seconds"),
        seconds=row.inner("approximate").number("seconds"),
        token_cosine=row.number_if_any("token_cosine"),
        sentence_cosine=row.number_if_any("sentence_cosine"),
    )
