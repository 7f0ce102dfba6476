"""Names, paths and messages are shown as they are: no markup, no emoji, no crash."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import Result

from mra_plugin.cli import console
from mra_plugin.registry import api, register_attention
from mra_plugin.registry.host import Registry

Mra = Callable[..., Result]
ODD = "[/b] [red]:smile:"


def test_no_part_of_the_screen_reads_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=ODD)
    table.add_column(ODD)
    table.add_row(ODD)
    screen = console.console()
    screen.print(table, ODD, console.plain(ODD))
    assert capsys.readouterr().out.count(ODD) == 5


def test_bytes_that_are_no_characters() -> None:
    name = os.fsdecode(b"caf\xe9")
    shown = console.printable(name)
    assert shown.encode().startswith(b"caf")


def test_odd_paths(mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path) -> None:
    (tmp_path / "[").mkdir()
    out = tmp_path / "[/b]"
    done = mra("convert", tiny_bert, out, "--text", letters, "--lengths", 16)
    assert done.exit_code == 0, done.output
    assert str(out) in done.stdout
    text = letters.rename(tmp_path / "[red]:smile:.txt")
    done = mra("compare", "--model", out, "--text", text, "--lengths", 16, "--block-per-row", 1)
    assert done.exit_code == 0, done.output
    assert str(out) in done.stdout
    refused = mra("convert", tmp_path / "[/none]", tmp_path / "x", "--[/x]")
    assert refused.exit_code == 2


def test_odd_backends(mra: Mra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_registry", Registry())
    reason = "cannot open [/usr/lib/x.so]"
    register_attention("[red]", summary="[/b]:smile:")(lambda: print)
    register_attention("[/i]", why_unavailable=lambda: reason)(lambda: print)
    done = mra("info")
    assert done.exit_code == 0, done.output
    for words in ("[red]", "[/b]:smile:", "[/i]", reason):
        assert words in done.stdout
