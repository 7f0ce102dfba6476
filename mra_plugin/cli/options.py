"""Checks of options that several commands have."""

from pathlib import Path

import torch

from .devices import available_devices
from .errors import BadArgumentError

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def positive_number(option: str, text: str) -> int:
    """The positive whole number that ``text`` spells."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number <= 0:
        raise BadArgumentError(f"{option} takes positive whole numbers, got {text!r}")
    return number


def parse_dtype(name: str) -> torch.dtype:
    """The data type that ``--dtype`` names."""
    if name not in DTYPES:
        raise BadArgumentError(f"--dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def parse_device(name: str | None) -> torch.device:
    """The device that ``--device`` names; None means CUDA where there is one, otherwise the CPU."""
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
