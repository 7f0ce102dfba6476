"""Distillation brings a patched model close to its exact teacher."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.letter_data import save_model
from transformers import AutoModel, BertForMaskedLM, BertModel
from typer.testing import Result

from mra_plugin.training.distillation import distance

Train = Callable[..., Result]
# Sharp attention, which averages don't come close to.
CONFIG = {"initializer_range": 0.3, "max_position_embeddings": 160}
SETTINGS = ("--eval-share", 0.3, "--attention", "mra", "--block-per-row", 1, "--length", 160,
            "--closeness-lengths", 64, "--closeness-lengths", 160, "--batch-size", 4)  # fmt: skip


def closeness(out: Path, when: str) -> list[float]:
    figures = json.loads((out / "closeness.json").read_text())
    assert [row["tokens"] for row in figures[when]] == [64, 160]
    return [row["token_cosine"] for row in figures[when]]


@pytest.mark.parametrize("model_class", [BertModel, BertForMaskedLM])
def test_the_gap_closes(
    train: Train, texts: Path, tmp_path: Path, model_class: type[BertModel] | type[BertForMaskedLM]
) -> None:
    model, out = save_model(model_class, tmp_path / "model", **CONFIG), tmp_path / "out"
    arguments = ("--data", texts, "--steps", 60, "--learning-rate", 1e-3, "--distill", "self")
    result = train(model, out, *arguments, *SETTINGS)
    assert result.exit_code == 0, result.output
    before, after = closeness(out, "before"), closeness(out, "after")
    assert 1 - after[0] < 0.9 * (1 - before[0])
    assert 1 - after[1] < 0.5 * (1 - before[1])
    assert f"160 tokens: token cosine {before[1]:.4f} -> {after[1]:.4f}" in result.output

    whole, loading = model_class.from_pretrained(out, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert whole.config.mra == {"block_per_row": 1}
    assert whole.config.architectures == [model_class.__name__]
    if model_class is BertForMaskedLM:
        head = model_class.from_pretrained(model).cls.predictions.transform.dense.weight
        assert whole.cls.predictions.transform.dense.weight.equal(head)


def test_a_model_of_sentence_transformers_stays_one(
    train: Train, texts: Path, tmp_path: Path
) -> None:
    model, out = save_model(BertModel, tmp_path / "model", **CONFIG), tmp_path / "out"
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])
    ]
    (model / "1_Pooling").mkdir()
    kept = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 16, "pooling_mode_cls_token": True},
        "config_sentence_transformers.json": {"prompts": {"query": "q "}},
        "sentence_bert_config.json": {"max_seq_length": 100},
    }
    for name, content in kept.items():
        (model / name).write_text(json.dumps(content))
    arguments = ("--data", texts, "--steps", 1, "--distill", "self")
    assert train(model, out, *arguments, *SETTINGS).exit_code == 0
    for name, content in kept.items():
        assert json.loads((out / name).read_text()) == content
    (model / "modules.json").write_text("[]")
    result = train(model, tmp_path / "other", *arguments, *SETTINGS)
    assert "has a modules.json without a module" in result.output
    assert not (tmp_path / "other").exists()


def test_a_shorter_teacher_is_tiled(train: Train, texts: Path, tmp_path: Path) -> None:
    teacher = save_model(
        BertModel, tmp_path / "teacher", **{**CONFIG, "max_position_embeddings": 80}
    )
    student = save_model(BertModel, tmp_path / "student", **CONFIG)
    arguments = ("--data", texts, "--steps", 1, "--distill", teacher)
    result = train(student, tmp_path / "out", *arguments, *SETTINGS)
    assert result.exit_code == 0, result.output


def test_masked_lm_beside_it(train: Train, bert: Path, texts: Path, tmp_path: Path) -> None:
    arguments = ("--data", texts, "--steps", 2, "--distill", "self", "--mlm-weight", 0.5)
    out = tmp_path / "out"
    result = train(bert, out, *arguments, "--eval-share", 0.3, "--closeness-lengths", 64)
    assert result.exit_code == 0, result.output
    assert AutoModel.from_pretrained(out).config.architectures == ["BertForMaskedLM"]


def test_a_teacher_of_another_size(train: Train, texts: Path, tmp_path: Path) -> None:
    teacher = save_model(BertModel, tmp_path / "teacher", **CONFIG, num_hidden_layers=1)
    student = save_model(BertModel, tmp_path / "student", **CONFIG)
    arguments = ("--data", texts, "--steps", 1, "--distill", teacher)
    result = train(student, tmp_path / "out", *arguments, *SETTINGS)
    assert result.exit_code == 2
    assert "has num_hidden_layers=1, but" in result.stderr


def test_distance() -> None:
    torch.manual_seed(0)
    states = torch.randn(3, 2, 5, 8).unbind()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert distance(states, states, mask).item() == pytest.approx(0, abs=1e-6)
    padding = [one.masked_fill(mask[..., None] == 0, 9.0) for one in states]
    assert distance(padding, states, mask).item() == pytest.approx(0, abs=1e-6)
    assert distance([one.flip(-1) for one in states], states, mask) > 1
