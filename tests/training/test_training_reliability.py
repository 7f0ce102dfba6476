"""Runs that diverge, that meet each other, that find a full disk or damaged files."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.letter_data import save_lines
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoConfig
from typer.testing import Result

from mra_plugin.errors import UserError
from mra_plugin.files import locked
from mra_plugin.training import run
from mra_plugin.training.checkpoints import LOCK, last_checkpoint, why_not_whole

Train = Callable[..., Result]
SETTINGS = ("--length", 32, "--batch-size", 2, "--log-every", 1, "--checkpoint-every", 1)


def refusal(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture(scope="module")
def finished(bert: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with a checkpoint of each."""
    from typer.testing import CliRunner

    from mra_plugin.cli import app

    out = tmp_path_factory.mktemp("run") / "out"
    arguments = [bert, out, "--data", texts, "--steps", 2, *SETTINGS]
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished`."""
    return shutil.copytree(finished, tmp_path / "out")


def test_a_run_leaves_nothing_behind(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {"config.json", "model.safetensors", "trainer_state.json", "training.yaml"}
    assert not {name for name in names if name.startswith(".")}


def test_the_config_is_the_models_own(finished: Path, bert: Path) -> None:
    """A Trainer turns the cache off for the training alone."""
    before, after = (AutoConfig.from_pretrained(path) for path in (bert, finished))
    assert before.use_cache
    assert after.use_cache


@pytest.mark.parametrize("checkpoints", [1, 100])
def test_a_run_that_diverges_is_an_error(
    train: Train, bert: Path, texts: Path, tmp_path: Path, checkpoints: int
) -> None:
    out = tmp_path / "out"
    rate = ("--learning-rate", 1e30, "--warmup", 0, "--steps", 4)
    result = train(bert, out, "--data", texts, *SETTINGS, *rate, "--checkpoint-every", checkpoints)
    line = refusal(result)
    assert "training diverged by step" in line
    assert "a smaller learning_rate" in line
    assert not (out / "model.safetensors").exists()
    kept = last_checkpoint(out)
    assert (kept is not None) == (checkpoints == 1)
    assert (f"{kept} is the last" if kept else "there is no checkpoint") in line
    for file in out.glob("checkpoint-*/model.safetensors"):
        assert all(weight.isfinite().all() for weight in load_file(file).values())


def test_losses_that_are_lost_end_a_run_though_the_weights_are_kept(tmp_path: Path) -> None:
    class State:
        global_step = 9

    class Arguments:
        output_dir = str(tmp_path)

    stop, nothing = run.StopDiverged(), torch.nn.Linear(1, 1)
    lost, found = {"loss": float("nan")}, {"loss": 1.0}
    for logs in (lost, lost, found, {"eval_loss": 1.0}, lost, lost):
        stop.on_log(Arguments(), State(), None, logs)
    with pytest.raises(UserError, match="diverged by step 9: the loss became"):
        stop.check_end(nothing, 1.0, 9, str(tmp_path))
    with pytest.raises(UserError, match="diverged by step 9: the loss became"):
        stop.on_log(Arguments(), State(), None, lost)
    run.StopDiverged().check_end(nothing, None, 9, str(tmp_path))
    with pytest.raises(UserError, match="the loss became"):
        run.StopDiverged().check_end(nothing, float("inf"), 9, str(tmp_path))


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_a_second_run_in_a_folder_is_refused(
    train: Train, bert: Path, texts: Path, out: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with locked(out / LOCK):
        result = train(bert, out, "--data", texts, "--steps", 2, *SETTINGS, "--resume")
        line = refusal(result)
    assert f"another run writes to '{out}'" in line
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")}.keys() == before.keys()
    assert all(path.stat().st_mtime_ns == before[path] for path in before if path != out)


@pytest.mark.parametrize(
    "file",
    ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"],
)
@pytest.mark.parametrize("share", [0.0, 0.9])
def test_a_cut_file_makes_no_checkpoint(out: Path, file: str, share: float) -> None:
    checkpoint = out / "checkpoint-2"
    assert why_not_whole(checkpoint) is None
    os.truncate(checkpoint / file, int((checkpoint / file).stat().st_size * share))
    assert file in str(why_not_whole(checkpoint))
    assert last_checkpoint(out) == out / "checkpoint-1"


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "scheduler.pt"])
def test_a_missing_file_makes_no_checkpoint(out: Path, file: str) -> None:
    (out / "checkpoint-2" / file).unlink()
    assert last_checkpoint(out) == out / "checkpoint-1"


def test_a_run_goes_on_from_the_last_whole_checkpoint(
    train: Train, bert: Path, texts: Path, finished: Path, out: Path
) -> None:
    os.truncate(out / "checkpoint-2" / "optimizer.pt", 100)
    os.truncate(out / "training.yaml", 0)
    arguments = (bert, out, "--data", texts, "--steps", 2, *SETTINGS, "--resume")
    assert "training.yaml' has no 'model', so it was cut" in refusal(train(*arguments))
    (out / "training.yaml").unlink()
    result = train(*arguments)
    assert result.exit_code == 0, result.output
    assert "checkpoint-2 is not whole: optimizer.pt is cut" in result.stdout
    assert f"going on from {out / 'checkpoint-1'}" in result.stdout
    weights, expected = (load_file(one / "model.safetensors") for one in (out, finished))
    assert all(weights[name].equal(expected[name]) for name in expected)


def test_checkpoints_without_settings_are_a_run_as_well(
    train: Train, bert: Path, texts: Path, out: Path
) -> None:
    for path in out.iterdir():
        if path.is_file():
            path.unlink()
    result = train(bert, out, "--data", texts, "--steps", 2)
    assert "holds a run already" in refusal(result)


def test_a_folder_that_can_not_be_written_to(
    train: Train, bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK and real(path, mode))
    result = train(bert, tmp_path / "a" / "b", "--data", texts, "--steps", 2)
    assert f"can't write to OUT '{tmp_path}/a/b': '{tmp_path}' can't be" in refusal(result)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "f"), "No space left on device: 'f'"),
        (OSError("odd"), "odd"),
        (SafetensorError("No space left\nmore"), "can't write to 'out': No space left"),
        (RuntimeError("PytorchStreamWriter failed"), "the disk may be full: PytorchStreamWriter"),
        (torch.OutOfMemoryError("CUDA out of memory"), "a smaller batch_size"),
    ],
)
def test_what_others_raise_is_one_message(error: Exception, message: str) -> None:
    with pytest.raises(UserError) as told, run.one_line_for_what_others_raise(Path("out")):
        raise error
    assert message in str(told.value)


def test_faults_of_the_code_keep_their_traceback() -> None:
    fault = RuntimeError("shapes differ")
    guard = run.one_line_for_what_others_raise(Path("out"))
    with pytest.raises(RuntimeError, match="shapes differ"), guard:
        raise fault


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("9" * 5000, ":1: has a number of too many digits"),
        ("[" * 10**5, ":1: is nested too deeply"),
    ],
)
def test_json_that_python_does_not_read(
    train: Train, bert: Path, tmp_path: Path, label: str, message: str
) -> None:
    rows = save_lines(tmp_path / "rows.jsonl", [f'{{"text": "a", "label": {label}}}'])
    result = train(bert, tmp_path / "out", "--task", "classify", "--data", rows)
    assert refusal(result).endswith(message)


def test_a_label_of_very_many_digits_is_a_text(train: Train, bert: Path, tmp_path: Path) -> None:
    rows = [{"text": "a b", "label": label} for label in ("9" * 5000, "2", "10")]
    file = save_lines(tmp_path / "rows.jsonl", rows)
    more = ("--task", "classify", "--data", file, "--steps", 1, "--batch-size", 1)
    assert train(bert, tmp_path / "out", *more).exit_code == 0


def test_a_tokenizer_without_padding(train: Train, bert: Path, tmp_path: Path) -> None:
    model = shutil.copytree(bert, tmp_path / "model")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None}))
    rows = save_lines(tmp_path / "rows.jsonl", [{"text": "a", "label": "x"}])
    result = train(model, tmp_path / "out", "--task", "classify", "--data", rows)
    assert "has no padding token" in refusal(result)
