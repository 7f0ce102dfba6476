"""The commands on MEGA models, or why they can't."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.letter_data import letter_tokenizer, save_lines, save_texts
from helpers.tiny_mega import CHUNKS, DECODER, STILL, make
from transformers import AutoModelForCausalLM
from typer.testing import Result

import mra_plugin

SIMPLE = {"relative_positional_bias": "simple"}
QUICK = ("--steps", 25, "--learning-rate", 1e-2, "--length", 48, "--log-every", 5)


def save(folder: Path, head: str = "MegaModel", **fields: object) -> Path:
    make(head, pad_token_id=0, initializer_range=0.2, **{**STILL, **fields}).save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return save_texts(tmp_path / "texts", 20)


@pytest.mark.parametrize("fields", [{}, CHUNKS], ids=["whole", "chunks"])
def test_convert(mra: Callable[..., Result], tmp_path: Path, fields: dict[str, object]) -> None:
    source, out = save(tmp_path / "source", "MegaForMaskedLM", **fields), tmp_path / "out"
    options = ("--max-length", 400, "--block-size", 8, "--block-per-row", 2)
    result = mra("convert", source, out, *options, "--lengths", 96)
    assert result.exit_code == 0, result.output
    assert "400, from 96; rotary positions" in result.output
    loaded = mra_plugin.MegaForMaskedLM.from_pretrained(out)
    assert loaded.config.max_positions == 400
    assert loaded.config.mra["block_per_row"] == 2
    assert loaded(torch.full((1, 400), 7)).logits.isfinite().all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (SIMPLE, "table of the distances that it was trained with"),
        ({**SIMPLE, **CHUNKS}, "'mra' does not serve a bias on its scores"),
        ({"attention_activation": "laplace"}, "'mra' is a softmax"),
        (DECODER, "it is a decoder"),
    ],
    ids=str,
)
def test_what_convert_refuses(
    mra: Callable[..., Result], tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    source, out = save(tmp_path / "source", **fields), tmp_path / "out"
    result = mra("convert", source, out, "--max-length", 400)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert not out.exists()


def test_convert_with_simple_positions_and_exact_attention(
    mra: Callable[..., Result], tmp_path: Path
) -> None:
    source, out = save(tmp_path / "source", **SIMPLE, **CHUNKS), tmp_path / "out"
    result = mra("convert", source, out, "--max-length", 200, "--attention", "sdpa")
    assert result.exit_code == 0, result.output
    assert "200, from 96; simple positions" in result.output


def test_stretching_simple_positions_inside_of_chunks() -> None:
    from mra_plugin.encoders.stretching import stretch

    model = make(**SIMPLE, **CHUNKS)
    ids = torch.arange(96)[None] % 60
    with torch.no_grad():
        before = model(ids)[0]
        stretch(model, None, 200)
        assert model(ids)[0].equal(before)
    assert model.state_dict()["layers.0.mega_layer.rel_pos_bias.rel_pos_bias"].shape == (399,)
    again = mra_plugin.MegaModel(model.config)
    again.load_state_dict(model.state_dict())


def test_compare(mra: Callable[..., Result], tmp_path: Path, letters: Path) -> None:
    source = save(tmp_path / "source")
    options = ("--text", letters, "--lengths", 64, "--block-size", 8, "--block-per-row", 1)
    result = mra("compare", "--model", source, *options)
    assert result.exit_code == 0, result.output
    assert "64" in result.output
    refused = mra("compare", "--model", save(tmp_path / "relu2", attention_activation="relu2"))
    assert refused.exit_code == 2
    assert "'mra' is a softmax" in " ".join(refused.output.split())


def test_plot(mra: Callable[..., Result], tmp_path: Path, letters: Path) -> None:
    pytest.importorskip("matplotlib")
    source, out = save(tmp_path / "source"), tmp_path / "head.png"
    options = ("--text", letters, "--length", 60, "--layer", 1, "--save", out)
    result = mra("plot", "--model", source, *options)
    assert result.exit_code == 0, result.output
    assert out.exists()
    result = mra("plot", "--model", save(tmp_path / "simple", **SIMPLE), *options)
    assert result.exit_code == 2
    assert "depend on distances" in " ".join(result.output.split())


def perplexities(out: Path) -> list[float]:
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [one["eval_perplexity"] for one in log if "eval_perplexity" in one]


@pytest.mark.parametrize("task", [pytest.param("mlm", marks=pytest.mark.slow), "clm"])
def test_training_on_text(
    mra: Callable[..., Result], tmp_path: Path, texts: Path, task: str
) -> None:
    pytest.importorskip("accelerate")
    head = {"mlm": "MegaForMaskedLM", "clm": "MegaForCausalLM"}[task]
    source, out = save(tmp_path / "source", head, **CHUNKS), tmp_path / "out"
    more = ("--attention", "mra", "--block-per-row", 1) if task == "mlm" else ()
    options = (*QUICK, "--task", task, "--eval-share", 0.3, "--eval-every", 5, *more)
    result = mra("train", source, out, "--data", texts, *options, "--gradient-checkpointing")
    assert result.exit_code == 0, result.output
    found = perplexities(out)
    assert found[-1] < 0.7 * found[0]
    if task == "clm":
        model = AutoModelForCausalLM.from_pretrained(out)
        assert type(model) is mra_plugin.MegaForCausalLM
        assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5).shape[1] <= 8


def test_encoders_are_no_decoders(mra: Callable[..., Result], tmp_path: Path, texts: Path) -> None:
    pytest.importorskip("accelerate")
    source = save(tmp_path / "source", "MegaForMaskedLM")
    result = mra("train", source, tmp_path / "out", "--data", texts, *QUICK, "--task", "clm")
    assert result.exit_code == 2
    assert "MegaForCausalLM needs config.is_decoder=True" in " ".join(result.output.split())


@pytest.mark.slow
def test_fine_tuning(mra: Callable[..., Result], tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    source, out = save(tmp_path / "source", "MegaForMaskedLM"), tmp_path / "out"
    rows = [{"text": letter * 3, "label": letter} for letter in ("a b c ", "x y z ")] * 8
    data = save_lines(tmp_path / "rows.jsonl", rows)
    options = ("--task", "classify", "--epochs", 6, "--learning-rate", 1e-2, "--log-every", 1)
    result = mra("train", source, out, "--data", data, *options)
    assert result.exit_code == 0, result.output
    model = mra_plugin.MegaForSequenceClassification.from_pretrained(out)
    assert set(model.config.label2id) == {"a b c ", "x y z "} or model.config.num_labels == 2


@pytest.mark.slow
def test_distillation(mra: Callable[..., Result], tmp_path: Path, texts: Path) -> None:
    pytest.importorskip("accelerate")
    fields = {"dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    source, out = save(tmp_path / "source", "MegaForMaskedLM", **fields), tmp_path / "out"
    options = ("--distill", "self", "--attention", "mra", "--block-per-row", 1, "--eval-share", 0.3)
    more = ("--closeness-lengths", 64, "--batch-size", 4)
    result = mra("train", source, out, "--data", texts, *QUICK, *options, *more)
    assert result.exit_code == 0, result.output
    assert mra_plugin.MegaForMaskedLM.from_pretrained(out).config.mra == {"block_per_row": 1}
