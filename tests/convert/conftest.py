from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from typer.testing import CliRunner, Result

from mra_plugin.cli import app


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    # Tables fold at the width of the terminal.
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def mra_convert(letters: Path) -> Callable[..., Result]:
    """Runs the command in this process on the letters: ``mra_convert(model, out, ...)``."""

    def run(*arguments: object) -> Result:
        given = [str(argument) for argument in ("--text", letters, "--device", "cpu", *arguments)]
        return CliRunner().invoke(app, ["convert", *given])

    return run


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A text of 100 letters, without special tokens."""
    path = tmp_path / "letters.txt"
    path.write_text("t h e q u i c k b r o w n f o x j u m p " * 5)
    return path
