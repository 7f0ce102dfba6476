"""What `mra train --distill` leaves in closeness.json: read, and as a table."""

from pathlib import Path

from mra_plugin.errors import UserError

from . import numbers
from .entries import source
from .fields import Fields
from .results import Distillation, Results
from .tables import Section, Table, of_tables

_KEYS = frozenset({"settings", "before", "after"})


def is_distillation(whole: Fields) -> bool:
    """Whether a file comes from `mra train --distill`, by the names at its top level."""
    return whole.values.keys() >= _KEYS


def read_distillation(whole: Fields, path: Path) -> Results:
    """What a file of `mra train --distill` holds.

    Args:
        whole: the file.
        path: where it lies.

    Raises:
        UserError: something is missing or of the wrong kind, or the lengths before and after
            differ.
    """
    settings = whole.inner("settings")
    before, after = whole.objects("before"), whole.objects("after")
    lengths = [row.count("tokens") for row in before]
    if not lengths or lengths != [row.count("tokens") for row in after]:
        raise UserError(f"{path}: 'before' and 'after' must have the same lengths, at least one")
    device = whole.text_if_any("device")
    on_cpu = device is None or device.startswith("cpu")
    where = numbers.counted(whole.count("threads"), "CPU thread") if on_cpu else str(device)
    seconds = whole.number_if_any("seconds")
    return Results(
        machine=f"training run on {where}",
        threads=None,  # the name says how many
        capability=None,
        dtype=_dtype(settings),
        sources=(source(path, whole.text_if_any("date"), whole.inner("versions")),),
        distillations=tuple(
            Distillation(
                steps=settings.count("steps"),
                batch=settings.count("batch_size"),
                length=settings.count("length"),
                where=where,
                minutes=None if seconds is None else seconds / 60,
                tokens=old.count("tokens"),
                token_cosines=(
                    old.number_if_any("token_cosine"),
                    new.number_if_any("token_cosine"),
                ),
                sentence_cosines=(
                    old.number_if_any("sentence_cosine"),
                    new.number_if_any("sentence_cosine"),
                ),
            )
            for old, new in zip(before, after, strict=True)
        ),
    )


def _dtype(settings: Fields) -> str:
    if settings.values.get("bf16"):
        return "bfloat16"
    return "float16" if settings.values.get("fp16") else "float32"


def distillation(results: Results) -> Section | None:
    """Closeness to the exact teacher by length, a table for each run."""
    runs: dict[tuple[object, ...], list[Distillation]] = {}
    for one in results.distillations:
        runs.setdefault((one.steps, one.batch, one.length, one.minutes), []).append(one)
    return of_tables("distillation", "Healed by distillation", "", map(_table, runs.values()))


def _table(run: list[Distillation]) -> Table:
    first = run[0]
    cost = first.where
    if first.minutes is not None:
        cost = f"{first.minutes:.0f} minutes, {cost}"
    return Table(
        f"Cosine to the teacher with exact attention on held-out text, before and after "
        f"{numbers.counted(first.steps, 'step')} of {numbers.counted(first.batch, 'example')} "
        f"of {first.length} tokens ({cost})",
        ("tokens", "token cosine", "after", "sentence cosine", "after"),
        tuple(
            (str(one.tokens), *map(numbers.error, (*one.token_cosines, *one.sentence_cosines)))
            for one in sorted(run, key=lambda one: one.tokens)
        ),
        frozenset(),
    )
