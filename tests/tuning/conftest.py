import random
import string
from collections.abc import Callable
from functools import partial
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from helpers.letter_models import save_model
from transformers import BertModel

from mra_plugin.encoders import measure


@pytest.fixture(autouse=True)
def _offline_and_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    # Tables fold at the width of the terminal.
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes by the budget alone: MRA gains from about 100 tokens on, if that is small."""

    def seconds_of(run: Callable[..., object], device: torch.device) -> float:
        assert isinstance(run, partial)
        model, ids = run.args
        tokens, config = ids.shape[1], model.config
        given = config.mra if config._attn_implementation == "mra" else {"exact_up_to": tokens}
        if tokens <= given["exact_up_to"]:
            return float(tokens + tokens**2 / 100)
        keys = given["block_per_row"] * given["block_size"] + given["salient_keys"]
        return float(tokens * (1.2 + keys / 100))

    monkeypatch.setattr(measure, "seconds_of", seconds_of)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with 48 positions, and its tokenizer."""
    return save_model(BertModel, tmp_path_factory.mktemp("tiny-bert"), max_position_embeddings=48)


@pytest.fixture
def letters() -> Callable[[int], str]:
    """Gives so many letters, some of which come more often in one region than in another."""

    def text(count: int) -> str:
        chance = random.Random(0)
        found: list[str] = []
        while len(found) < count:
            weights = [chance.random() ** 4 for _ in string.ascii_lowercase]
            found += chance.choices(string.ascii_lowercase, weights, k=254)
        return " ".join(found[:count])

    return text
