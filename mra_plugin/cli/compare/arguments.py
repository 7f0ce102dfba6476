"""What the options of the command line stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mra_plugin.environment import parse_device
from mra_plugin.errors import UserError
from mra_plugin.registry import AttentionError, get_attention

from ..mra_options import check_together, given_options
from ..options import parse_dtype, parse_lengths, writable


@dataclass(frozen=True)
class Job:
    """What `mra compare` was asked to do.

    Attributes:
        model: folder or hub id; None means the demo's.
        text: file to read; None means the demo's text.
        lengths: tokens, ascending.
        attentions: names of registered backends, each once.
        options: of MRA attention, as far as they are given; ``"preset"`` may be among them.
            ``"block_per_row"`` is for all backends that have such a budget.
        device: where to run.
        dtype: of the weights.
        json: file for the figures.
    """

    model: str | None
    text: Path | None
    lengths: list[int]
    attentions: list[str]
    options: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    json: Path | None


def parse_job(
    *,
    model: str | None,
    text: Path | None,
    lengths: str,
    attentions: list[str],
    mra_options: Mapping[str, str | None],
    device: str | None,
    dtype: str,
    json: Path | None,
) -> Job:
    """Checks all that can be checked before anything is loaded."""
    names = _attentions(attentions)
    return Job(
        model=model,
        text=text,
        lengths=parse_lengths(lengths),
        attentions=names,
        options=_options(mra_options, names),
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


def _options(given: Mapping[str, str | None], attentions: list[str]) -> dict[str, Any]:
    options = given_options(given)
    check_together(options)
    if "mra" not in attentions and (of_mra := [one for one in options if one != "block_per_row"]):
        raise UserError(
            f"--{of_mra[0].replace('_', '-')} is an option of mra, which is not compared: "
            "add --attention mra"
        )
    return options
