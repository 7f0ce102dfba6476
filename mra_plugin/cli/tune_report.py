"""What `mra tune` says at the end."""

from pathlib import Path

import torch
from rich.table import Table

from mra_plugin.environment import describe, installed_versions
from mra_plugin.ops.presets import shorten_options, spell_options
from mra_plugin.tuning.result import AtLength, Tuned

from .console import console, printable, table_of_figures

_MEANS = {
    "sentence": "mean cosine of the documents' mean vectors to those with exact attention",
    "token": "mean cosine of the tokens' vectors to those with exact attention",
    "ranking": "share of each document's three nearest others that exact attention gives too",
}


def print_found(found: Tuned, model: str, text: Path, device: torch.device) -> None:
    """Prints the frontier, what was picked, and what a reader should know beside it."""
    screen = console()
    if found.frontier:
        screen.print(_table(found), "")
    screen.print(printable(_verdict(found)), "")
    for note in _notes(found, model, text, device):
        screen.print(printable(note), style="dim")


def _table(found: Tuned) -> Table:
    table = table_of_figures(
        "mra beside exact attention, on held-out documents; the fastest first", leading=1
    )
    table.add_column("")
    table.add_column("settings", vertical="bottom", max_width=40)
    for header in ("tokens", "time\nexact", "time\nmra", "speed-\nup", found.metric):
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for row in found.frontier:
        cells = [_cells(one, row.options["exact_up_to"]) for one in row.lengths]
        table.add_row(
            "*" if row.options == found.options else "",
            spell_options(row.options),
            *("\n".join(column) for column in zip(*cells, strict=True)),
        )
    return table


def _cells(one: AtLength, exact_up_to: int) -> list[str]:
    return [
        str(one.tokens),
        _seconds(one.times.exact_seconds),
        _seconds(one.times.seconds),
        f"{one.times.speed_up:.2f}x",
        "exact" if one.tokens <= exact_up_to else f"{one.closeness:.4f}",
    ]


def _verdict(found: Tuned) -> str:
    if found.options is None:
        return (
            f"none: no settings gain time and reach {found.target} in the metric {found.metric} at "
            "every length; use exact attention, as the model has it"
        )
    (row,) = (one for one in found.frontier if one.options == found.options)
    given = ", ".join(f"{name}={value!r}" for name, value in shorten_options(found.options).items())
    return (
        f"* {row.speed_up:.2f}x as fast as exact attention, and {found.metric} at least "
        f"{row.closeness:.4f}: mra_plugin.patch(model, {given})"
    )


def _notes(found: Tuned, model: str, text: Path, device: torch.device) -> list[str]:
    notes = [
        f"{model}, float32, on {describe(device)}; torch {installed_versions()['torch']}",
        f"text: {text}, {found.documents} documents to search with and {found.documents} held out",
        f"{found.metric}: {_MEANS[found.metric]}",
        "time: median forward pass of the whole encoder, in turn with exact attention",
        *found.repeated.sentences(),
    ]
    if found.options is not None:
        notes.append(
            f"inputs of up to {found.options['exact_up_to']} tokens get exact attention "
            "(exact_up_to): from there on mra began to gain, as far as was measured"
        )
    return notes


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"
