from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
from helpers.letter_data import save_model, save_texts
from transformers import BertForMaskedLM
from typer.testing import CliRunner, Result

from mra_plugin.cli import app


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def train() -> Callable[..., Result]:
    """Runs ``mra train`` in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["train", *(str(argument) for argument in arguments)])

    return run


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with 64 positions, and its tokenizer."""
    return save_model(BertForMaskedLM, tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of documents."""
    return save_texts(tmp_path_factory.mktemp("data") / "texts", 30)
