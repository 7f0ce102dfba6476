"""Whole sets of options under one name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .options import MRAOptions

# "paper": MRA-2 as published. "close": what keeps a pretrained model's results;
# docs/choosing-the-budget.md has the measurements.
PRESETS: dict[str, MRAOptions] = {
    "paper": MRAOptions(),
    "close": MRAOptions(
        block_size=16,
        block_per_row=14,
        selection="per_row",
        coarse_key_size=4,
        salient_keys=32,
        block_score="mass",
        exact_up_to=1024,
    ),
}


def preset_options(name: str) -> dict[str, Any]:
    """The options that a preset stands for, all of them written out.

    Args:
        name: one of `PRESETS`.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PRESETS:
        known = " or ".join(f'"{one}"' for one in PRESETS)
        raise ValueError(f"preset must be {known}, got {name!r}")
    return asdict(PRESETS[name])
