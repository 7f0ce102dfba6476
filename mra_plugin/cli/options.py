"""Arguments and options that several commands have, and checks of their values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from .errors import BadArgumentError

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
    if number <= 0:
        raise BadArgumentError(f"{option} takes positive whole numbers, got {text!r}")
    return number


def parse_lengths(text: str) -> list[int]:
    """The numbers of tokens that ``--lengths`` lists, each once, ascending."""
    return sorted({positive_number("--lengths", part.strip()) for part in text.split(",")})


def parse_dtype(name: str) -> torch.dtype:
    """The data type that ``--dtype`` names."""
    import torch

    if name not in DTYPES:
        raise BadArgumentError(f"--dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def parse_device(name: str | None) -> torch.device:
    """The device that ``--device`` names; None means CUDA where there is one, otherwise the CPU."""
    import torch

    from .devices import available_devices

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Whether it is there shows only when something is put on it and read back.
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise BadArgumentError(
            f"--device {name!r} can't be used here; available: {', '.join(available_devices())}"
        ) from None
    return device


def writable(option: str, path: Path | None) -> Path | None:
    """Refuses a file that could not be written once all is measured."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise BadArgumentError(
            f"{option} must name a file in a folder that exists, got {str(path)!r}"
        )
    return path
