"""The options of MRA attention on the command line: what they are called, and what they take.

The only list of them there; `mra_plugin.ops.MRAOptions` can't be asked, as ``--help`` is not to
wait for torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from mra_plugin.errors import UserError

from .options import positive_number

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True)
class _Flag:
    """An option as a flag.

    Attributes:
        metavar: what it takes, in a word.
        help: its line of help.
        default: the paper's, as one would type it.
        least: of a number.
        choices: where it takes one of some words.
    """

    metavar: str
    help: str
    default: str
    least: int = 1
    choices: tuple[str, ...] = ()

    def parse(self, flag: str, text: str) -> int | str:
        """The value that a text spells.

        Raises:
            UserError: it spells none.
        """
        if self.choices:
            if text not in self.choices:
                raise UserError(f"{flag} must be {' or '.join(self.choices)}, got {text!r}")
            return text
        if self.least == 0:
            return 0 if text.strip() == "0" else _number_from_0(flag, text)
        return positive_number(flag, text)


FLAGS: dict[str, _Flag] = {
    "block_size": _Flag("N", "Tokens per block: 8, 16, 32, 64 or 128.", "32"),
    "block_per_row": _Flag("N", "Exact blocks per row of blocks.", "4"),
    "num_blocks": _Flag("N", "Exact blocks per head in all, in place of those per row.", "none"),
    "approx_mode": _Flag(
        "MODE",
        "full averages what is not exact, sparse leaves it out.",
        "full",
        choices=("full", "sparse"),
    ),
    "selection": _Flag(
        "HOW",
        "global spends the blocks where they matter most, per_row evenly.",
        "global",
        choices=("global", "per_row"),
    ),
    "block_score": _Flag(
        "HOW",
        "mean chooses blocks by the score of their means, mass by their share of the row.",
        "mean",
        choices=("mean", "mass"),
    ),
    "coarse_key_size": _Flag(
        "N", "Keys that are averaged together where a block is not exact.", "the block size"
    ),
    "salient_keys": _Flag("N", "Keys of each head that every query sees exactly.", "0", least=0),
    "exact_up_to": _Flag("N", "Sequences of up to so many tokens are exact.", "0", least=0),
    "initial_prior_first_n_blocks": _Flag(
        "N", "The first N rows and columns of blocks come first.", "0", least=0
    ),
    "initial_prior_diagonal_n_blocks": _Flag(
        "N", "The N diagonals of blocks around the main one come first.", "0", least=0
    ),
}

_PANEL = "Options of mra, with the paper's defaults"


def takes_mra_options(without: str) -> Callable[[Command], Command]:
    """Gives a command ``--preset`` and a flag for each option, in place of its ``**mra_options``.

    What it is then called with, `given_options` reads.

    Args:
        without: what the command takes where none of them is given, as its help says it.
    """

    def give(command: Command) -> Command:
        parameters = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
        preset = _option(
            "NAME",
            "Set of options, paper or close; options beside it win. An option without a preset "
            "goes with the paper's.",
            without,
        )
        options = {"preset": preset} | {
            name: _option(flag.metavar, flag.help, flag.default) for name, flag in FLAGS.items()
        }
        signature = inspect.Signature(
            [
                *parameters,
                *(
                    inspect.Parameter(
                        name, inspect.Parameter.KEYWORD_ONLY, default=one, annotation=str | None
                    )
                    for name, one in options.items()
                ),
            ]
        )
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return give


def given_options(mra_options: Mapping[str, str | None]) -> dict[str, Any]:
    """The options that a command was given, each right by itself; ``"preset"`` is among them.

    Args:
        mra_options: texts by name; None was not given.

    Raises:
        UserError: one has a wrong value, or there is no such preset.
    """
    return {
        name: _preset(text) if name == "preset" else FLAGS[name].parse(_spelled(name), text)
        for name, text in mra_options.items()
        if text is not None
    }


def check_together(options: Mapping[str, Any]) -> None:
    """Refuses options that don't go together.

    Raises:
        UserError: says which.
    """
    from mra_plugin.ops import MRAOptions
    from mra_plugin.ops.presets import expand_preset

    try:
        MRAOptions(**expand_preset(options))
    except ValueError as error:
        raise UserError(str(error)) from None


def _option(metavar: str, help: str, default: str) -> Any:
    return typer.Option(
        None, metavar=metavar, help=help, show_default=default, rich_help_panel=_PANEL
    )


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _preset(name: str) -> str:
    from mra_plugin.ops import PRESETS

    if name not in PRESETS:
        raise UserError(f"--preset must be {' or '.join(PRESETS)}, got {name!r}")
    return name


def _number_from_0(flag: str, text: str) -> int:
    try:
        return positive_number(flag, text)
    except UserError:
        raise UserError(f"{flag} takes whole numbers from 0, got {text!r}") from None
