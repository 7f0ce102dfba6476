"""Whole sets of options under one name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
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

# What a pretrained model gets where nothing else is asked for.
FOR_PRETRAINED = "close"

_OPTIONS = frozenset(one.name for one in fields(MRAOptions))


def preset_options(name: str) -> dict[str, Any]:
    """The options that a preset stands for, all of them written out.

    Args:
        name: one of `PRESETS`.

    Raises:
        ValueError: there is no such preset.
    """
    if not isinstance(name, str) or name not in PRESETS:
        known = " or ".join(f'"{one}"' for one in PRESETS)
        raise ValueError(f"preset must be {known}, got {name!r}")
    return asdict(PRESETS[name])


def expand_preset(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with what a preset stands for in place of its name.

    Args:
        params: options of MRA attention and what else goes with them. ``"preset"`` may be among
            them; all others go before what it stands for. None is no preset.

    Raises:
        ValueError: there is no such preset.
    """
    given = {name: value for name, value in params.items() if name != "preset"}
    preset = params.get("preset")
    return given if preset is None else {**preset_options(preset), **given}


def shorten_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same as few parameters, to be shown: the nearest preset's name, and what differs from it.

    ``"paper"`` needs no name beside other options, as it is what they go with by themselves.

    Args:
        params: as a config keeps them; where options are missing, they are shown as they are.
    """
    if not params.keys() >= _OPTIONS:
        return dict(params)
    different = {
        name: {one: value for one, value in params.items() if options.get(one, ...) != value}
        for name, options in ((name, asdict(preset)) for name, preset in PRESETS.items())
    }
    nearest = min(different, key=lambda name: len(different[name]))
    if nearest == "paper" and different[nearest]:
        return different[nearest]
    return {"preset": nearest, **different[nearest]}


def spell_options(params: Mapping[str, Any]) -> str:
    """`shorten_options` in a line: "preset=close, block_per_row=8"."""
    return ", ".join(f"{name}={value}" for name, value in shorten_options(params).items())


def names_an_option(params: Mapping[str, Any]) -> bool:
    """Whether an option of MRA attention, or a preset, is among parameters."""
    return params.get("preset") is not None or not _OPTIONS.isdisjoint(params)
