"""Arguments and options that several commands have, and checks of their values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from mra_plugin.errors import UserError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float16", "bfloat16", "float64")

ModelArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder, or id on the hub.")
]
OutArgument: TypeAlias = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.")]
ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="PATH_OR_ID",
        help="Encoder to load: a folder, or an id on the hub.",
        show_default="all-MiniLM-L6-v2 of the extra 'demo', offline",
    ),
]
TextOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Text to read, repeated where it is too short.",
        show_default="Python's language reference",
    ),
]
DeviceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Where to run, for example cpu or cuda:0.",
        show_default="cuda where there is one, otherwise cpu",
    ),
]


def positive_number(option: str, text: str) -> int:
    """The positive whole number that ``text`` spells."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number < 2**31:
        raise UserError(f"{option} takes positive whole numbers, got {text!r}")
    return number


def parse_lengths(text: str) -> list[int]:
    """The numbers of tokens that ``--lengths`` lists, each once, ascending."""
    return sorted({positive_number("--lengths", part.strip()) for part in text.split(",")})


def parse_dtype(name: str) -> torch.dtype:
    """The data type that ``--dtype`` names."""
    import torch

    if name not in DTYPES:
        raise UserError(f"--dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def writable(option: str, path: Path | None) -> Path | None:
    """Refuses a file that could not be written once all is measured."""
    if path is None:
        return None
    try:
        fits = not path.is_dir() and path.absolute().parent.is_dir()
    except OSError as error:
        raise UserError(f"can't write {option} {str(path)!r}: {error.strerror}") from None
    if not fits:
        raise UserError(f"{option} must name a file in a folder that exists, got {str(path)!r}")
    return path
