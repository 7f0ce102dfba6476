from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from helpers.letter_models import save_model
from transformers import BertModel
from typer.testing import CliRunner, Result

from mra_plugin.cli import app
from mra_plugin.encoders import measure


@pytest.fixture(autouse=True)
def _offline_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(measure, "SECONDS", 0.0)
    # Tables fold at the width of the terminal.
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def mra() -> Callable[..., Result]:
    """Runs the command in this process: ``mra("compare", "--lengths", 8)``."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with 48 positions, and its tokenizer."""
    return save_model(BertModel, tmp_path_factory.mktemp("tiny-bert"), max_position_embeddings=48)


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A text of 100 tokens for the tokenizer of `tiny_bert`, without the special ones."""
    path = tmp_path / "letters.txt"
    path.write_text("t h e q u i c k b r o w n f o x j u m p " * 5)
    return path
