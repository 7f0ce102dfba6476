"""Runs that go on from a checkpoint, and folders that can't be gone on with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.letter_data import LETTERS, losses, save_lines, save_model
from safetensors.torch import load_file
from transformers import BertForMaskedLM
from typer.testing import Result

from mra_plugin.errors import UserError
from mra_plugin.training.checkpoints import check_optimizer

Train = Callable[..., Result]
COMMON = ("--log-every", 1, "--batch-size", 4, "--learning-rate", 1e-2)
DISTILLED = ("--distill", "self", "--steps", 8, "--checkpoint-every", 5, "--length", 64,
             "--eval-share", 0.3, "--closeness-lengths", 64,
             "--attention", "mra", "--block-per-row", 1)  # fmt: skip
# Five steps each pass: the checkpoint is in the middle of the second.
TUNED = ("--task", "classify", "--epochs", 2, "--checkpoint-every", 7)


@pytest.fixture
def arguments(request: pytest.FixtureRequest, texts: Path, tmp_path: Path) -> tuple[Any, ...]:
    """Model, data and options, by the name of the kind of run."""
    # Dropout shows whether the state of the random numbers is the same, but distillation has none.
    model = save_model(
        BertForMaskedLM, tmp_path / "model", hidden_dropout_prob=0.2, initializer_range=0.3
    )
    if request.param == "distilled":
        return model, "--data", texts, *DISTILLED, *COMMON
    rows = [
        {"text": " ".join(LETTERS[start : start + 3 + start % 4]), "label": "ab"[start % 2]}
        for start in range(20)
    ]
    return model, "--data", save_lines(tmp_path / "rows.jsonl", rows), *TUNED, *COMMON


def run(train: Train, arguments: tuple[Any, ...], out: Path, *more: str) -> Path:
    model, *rest = arguments
    result = train(model, out, *rest, *more)
    assert result.exit_code == 0, result.output
    return out


def same_outcome(one: Path, other: Path) -> bool:
    weights, others = (load_file(out / "model.safetensors") for out in (one, other))
    assert weights.keys() == others.keys()
    same = all(weights[name].equal(others[name]) for name in weights)
    return same and losses(one) == losses(other)


def checkpoints(out: Path) -> list[int]:
    return sorted(int(folder.name.split("-")[1]) for folder in out.glob("checkpoint-*"))


@pytest.mark.parametrize("arguments", ["distilled", "tuned"], indirect=True)
def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    train: Train, arguments: tuple[Any, ...], tmp_path: Path
) -> None:
    whole = run(train, arguments, tmp_path / "whole")
    assert len(checkpoints(whole)) == 2
    out = shutil.copytree(whole, tmp_path / "out")
    shutil.rmtree(out / f"checkpoint-{checkpoints(whole)[-1]}")
    for name in ("config.json", "model.safetensors", "trainer_state.json"):
        (out / name).unlink()
    run(train, arguments, out, "--resume")
    assert same_outcome(out, whole)
    if "--distill" in arguments:
        old, new = (json.loads((one / "closeness.json").read_text()) for one in (whole, out))
        assert (new["before"], new["after"]) == (old["before"], old["after"])
        assert old["seconds"] > 0
        assert new["seconds"] is None

    # Nothing is left to do, and nothing is done.
    run(train, arguments, out, "--resume")
    assert same_outcome(out, whole)
    assert checkpoints(out) == checkpoints(whole)


@pytest.mark.parametrize("arguments", ["tuned"], indirect=True)
def test_an_optimizer_in_the_other_form(
    train: Train, arguments: tuple[Any, ...], tmp_path: Path
) -> None:
    out = run(train, arguments, tmp_path / "out")
    checkpoint = out / f"checkpoint-{checkpoints(out)[-1]}"
    with pytest.raises(UserError, match="in the form of a run without FSDP"):
        check_optimizer(checkpoint, sharded=True)
    check_optimizer(checkpoint, sharded=False)
    (checkpoint / "optimizer.pt").rename(checkpoint / "optimizer.bin")
    model, *rest = arguments
    result = train(model, out, *rest, "--resume")
    assert result.exit_code == 2
    assert "in the form of a run with FSDP: go on with FSDP" in result.stderr
    check_optimizer(checkpoint, sharded=True)


def test_a_model_is_not_replaced(train: Train, bert: Path, texts: Path) -> None:
    before = (bert / "model.safetensors").read_bytes()
    for more in ((), ("--resume",)):
        result = train(bert, bert, "--data", texts, "--steps", 1, *more)
        assert result.exit_code == 2
        assert "holds a model, which this run would replace" in result.stderr
    assert (bert / "model.safetensors").read_bytes() == before
