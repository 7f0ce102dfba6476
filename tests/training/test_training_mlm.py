"""Masked-LM training, its interruption, and what it writes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.letter_data import losses, save_model
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM
from typer.testing import Result

import mra_plugin
from mra_plugin.training.checkpoints import last_checkpoint

Train = Callable[..., Result]
SETTINGS = ("--steps", 12, "--log-every", 1, "--checkpoint-every", 5, "--learning-rate", 3e-3)


@pytest.fixture(scope="module")
def dropout_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With dropout, so that the state of the random numbers matters."""
    folder = tmp_path_factory.mktemp("dropout-bert")
    return save_model(BertForMaskedLM, folder, hidden_dropout_prob=0.2)


@pytest.fixture(scope="module")
def whole_run(dropout_bert: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from mra_plugin.cli import app

    out = tmp_path_factory.mktemp("whole") / "out"
    arguments = ["train", dropout_bert, out, "--data", texts, *SETTINGS, "--length", 32]
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return out


def test_training_lowers_loss_and_perplexity(train: Train, bert: Path, texts: Path, tmp_path: Path):
    out = tmp_path / "out"
    result = train(
        bert, out, "--data", texts, "--eval-share", 0.3, "--attention", "mra", "--block-per-row", 1,
        "--steps", 60, "--eval-every", 30, "--learning-rate", 1e-2, "--batch-size", 4, "--bf16",
        "--gradient-checkpointing",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    perplexities = [one["eval_perplexity"] for one in log if "eval_perplexity" in one]
    assert perplexities[-1] < perplexities[0] < len("abcdefghijklmnopqrstuvwxyz[]")
    assert "eval_perplexity" in result.output
    assert list((out / "runs").rglob("events.out.tfevents*"))

    model = AutoModelForMaskedLM.from_pretrained(out)
    assert model.config._attn_implementation == "mra"
    assert model.config.mra == {"block_per_row": 1}
    inputs = AutoTokenizer.from_pretrained(out)("a b c", return_tensors="pt")
    assert model(**inputs).logits.isfinite().all()


def test_settings_can_be_passed_back(
    train: Train, dropout_bert: Path, whole_run: Path, tmp_path: Path
):
    result = train(
        dropout_bert, tmp_path / "out", "--config", whole_run / "training.yaml", "--log-every", 4
    )
    assert result.exit_code == 0, result.output
    every = [loss for _, loss in losses(whole_run)]
    assert [loss for _, loss in losses(tmp_path / "out")] == pytest.approx(
        [sum(every[start : start + 4]) / 4 for start in (0, 4, 8)]
    )


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    train: Train, dropout_bert: Path, texts: Path, whole_run: Path, tmp_path: Path
):
    out = tmp_path / "out"
    arguments = [dropout_bert, out, "--data", texts, *SETTINGS, "--length", 32]
    code = "import sys, mra_plugin.cli; mra_plugin.cli.app(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", *(str(one) for one in arguments)],
        stdout=subprocess.PIPE,
        # Sums are rounded alike only by as many threads.
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        text=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("step 6/"):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    for name in ("checkpoint-10", "checkpoint-12"):  # the process may have run on for a moment
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "checkpoint-7").mkdir()  # a kill while it was being written
    assert last_checkpoint(out) == out / "checkpoint-5"

    refused = train(*arguments)
    assert refused.exit_code == 2
    assert "holds a run already: go on with --resume" in refused.output
    result = train(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert "going on from" in result.output
    assert losses(out) == losses(whole_run)
    assert _weights(out).equal(_weights(whole_run))


def test_accumulation_changes_nothing(train: Train, bert: Path, texts: Path, tmp_path: Path):
    for parts in (1, 4):
        result = train(
            bert, tmp_path / str(parts), "--data", texts, *SETTINGS, "--accumulate", parts
        )
        assert result.exit_code == 0, result.output
    one, four = (losses(tmp_path / name) for name in ("1", "4"))
    assert [loss for _, loss in four] == pytest.approx([loss for _, loss in one], rel=1e-5)


def test_from_scratch(train: Train, bert: Path, texts: Path, tmp_path: Path):
    out = tmp_path / "out"
    arguments = ("--data", texts, "--steps", 1, "--from-scratch", "--seed", 1)
    assert train(bert, out, *arguments).exit_code == 0
    assert not torch.allclose(_weights(out), _weights(bert), atol=1e-3)


def test_other_settings_are_no_resumption(
    train: Train, dropout_bert: Path, texts: Path, whole_run: Path
):
    result = train(dropout_bert, whole_run, "--data", texts, *SETTINGS, "--length", 16, "--resume")
    assert result.exit_code == 2
    assert "length (32, now 16) differs" in result.output


def _weights(folder: Path) -> torch.Tensor:
    model = mra_plugin.unpatch(AutoModelForMaskedLM.from_pretrained(folder))
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])
