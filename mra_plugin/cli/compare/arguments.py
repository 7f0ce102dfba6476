"""What the options of the command line stand for."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mra_plugin.environment import parse_device
from mra_plugin.errors import UserError
from mra_plugin.registry import AttentionError, get_attention

from ..options import parse_dtype, parse_lengths, positive_number, writable


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
        lengths=parse_lengths(lengths),
        attentions=_attentions(attentions),
        block_per_row=positive_number("--block-per-row", block_per_row),
        device=parse_device(device),
        dtype=parse_dtype(dtype),
        json=writable("--json", json),
    )


def _attentions(names: list[str]) -> list[str]:
    for name in names:
        try:
            get_attention(name)
        except AttentionError as error:
            raise UserError(f"--attention: {error}") from None
    return list(dict.fromkeys(names))
