"""What the options of the command line stand for."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mra_plugin.registry import AttentionError, get_attention

from .devices import available_devices
from .errors import BadArgumentError

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


@dataclass(frozen=True)
class Job:
    """What `mra compare` was asked to do.

    Attributes:
        model: folder or hub id; None means the demo's.
        text: file to read; None means the demo's text.
        lengths: tokens, ascending.
        attentions: names of registered backends, each once.
        block_per_row: budget for the backends that have one.
        device: where to run.
        dtype: of the weights.
        json: file for the figures.
    """

    model: str | None
    text: Path | None
    lengths: list[int]
    attentions: list[str]
    block_per_row: int
    device: torch.device
    dtype: torch.dtype
    json: Path | None


def parse_job(
    *,
    model: str | None,
    text: Path | None,
    lengths: str,
    attentions: list[str],
    block_per_row: str,
    device: str | None,
    dtype: str,
    json: Path | None,
) -> Job:
    """Checks all that can be checked before anything is loaded."""
    return Job(
        model=model,
        text=text,
        lengths=_lengths(lengths),
        attentions=_attentions(attentions),
        block_per_row=_positive_number("--block-per-row", block_per_row),
        device=_device(device),
        dtype=_dtype(dtype),
        json=_writable(json),
    )


def _positive_number(option: str, text: str) -> int:
    """The positive whole number that ``text`` spells."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number <= 0:
        raise BadArgumentError(f"{option} takes positive whole numbers, got {text!r}")
    return number


def _lengths(text: str) -> list[int]:
    return sorted({_positive_number("--lengths", part.strip()) for part in text.split(",")})


def _attentions(names: list[str]) -> list[str]:
    for name in names:
        try:
            get_attention(name)
        except AttentionError as error:
            raise BadArgumentError(f"--attention: {error}") from None
    return list(dict.fromkeys(names))


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise BadArgumentError(f"--dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


def _device(name: str | None) -> torch.device:
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


def _writable(path: Path | None) -> Path | None:
    """Refuses a file that could not be written once all is measured."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise BadArgumentError(
            f"--json must name a file in a folder that exists, got {str(path)!r}"
        )
    return path
