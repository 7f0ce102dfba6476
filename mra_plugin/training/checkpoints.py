"""What a run leaves in its folder, so that another can go on from there."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path

from safetensors import SafetensorError, safe_open

from mra_plugin.encoders.pretrained import check_spelling
from mra_plugin.errors import UserError
from mra_plugin.files import locked

from .config import TrainingConfig
from .settings_file import settings_from_yaml

SETTINGS = "training.yaml"
LOCK = ".lock"
STATE = "trainer_state.json"
# Settings that may change when a run goes on, since no loss depends on them.
FREE = {
    "accumulate",
    "checkpoint_every",
    "closeness_lengths",
    "eval_every",
    "gradient_checkpointing",
    "keep_checkpoints",
    "log_every",
}


def last_checkpoint(out: Path) -> Path | None:
    """The latest whole checkpoint; None if there is none."""
    return next((folder for folder in _checkpoints(out) if why_not_whole(folder) is None), None)


def damaged_since(out: Path, checkpoint: Path | None) -> list[str]:
    """What is wrong with the checkpoints that are later than the one to go on from."""
    found = []
    for folder in _checkpoints(out):
        if folder == checkpoint:
            break
        found.append(f"{folder.name} is not whole: {why_not_whole(folder)}")
    return found


def why_not_whole(folder: Path) -> str | None:
    """What a checkpoint lacks, or None if a run can go on from it.

    The Trainer writes its state last, so a folder without it was left by a kill. Files that were
    cut afterwards, as by a disk that was full or went off, are found by the ends that their
    formats have.
    """
    try:
        json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{STATE} is missing or cut"
    names = {path.name for path in folder.iterdir()}
    for what, wanted in (
        ("weights", ("model.", "model-", "pytorch_model")),
        ("optimizer", ("optimizer",)),
        ("scheduler", ("scheduler.pt",)),
    ):
        if not any(name.startswith(wanted) for name in names):
            return f"it has no {what}"
    return next((f"{path.name} is cut" for path in sorted(folder.iterdir()) if _is_cut(path)), None)


def check_folder(out: Path, config: TrainingConfig, resume: bool) -> Path | None:
    """Checks that a run with these settings may write to ``out``.

    Args:
        out: folder of the run.
        config: its settings.
        resume: whether it goes on with what is there.

    Returns:
        The checkpoint to go on from, if any.

    Raises:
        UserError: another run is there and ``resume`` is not set, or its settings differ; or a
            model is there that the run would replace; or nothing can be written there.
    """
    check_spelling(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"OUT must be a folder, got {str(out)!r}")
    _check_writable(out)
    if not resume and ((out / SETTINGS).exists() or _checkpoints(out)):
        raise UserError(
            f"{str(out)!r} holds a run already: go on with --resume, or name another folder"
        )
    checkpoint = last_checkpoint(out) if resume else None
    if checkpoint is None and (out / "config.json").exists():
        raise UserError(
            f"{str(out)!r} holds a model, which this run would replace: name another folder"
        )
    if checkpoint is not None and (out / SETTINGS).exists():
        before = _settings(out / SETTINGS)
        changed = [
            f"{name} ({value!r}, now {getattr(config, name)!r})"
            for name, value in vars(before).items()
            if name not in FREE and value != getattr(config, name)
        ]
        if changed:
            raise UserError(f"--resume goes on with the same settings, but {changed[0]} differs")
    return checkpoint


def check_optimizer(checkpoint: Path, sharded: bool) -> None:
    """Checks that a run can go on with the optimizer of a checkpoint.

    Args:
        checkpoint: to go on from.
        sharded: whether the run spreads parameters over processes (FSDP).

    Raises:
        UserError: the optimizer was saved in the other form.
    """
    if (checkpoint / "optimizer.pt").is_file() == sharded:
        other = "without FSDP" if sharded else "with FSDP"
        raise UserError(
            f"{str(checkpoint)!r} holds the optimizer in the form of a run {other}: go on {other}"
        )


@contextmanager
def one_writer(out: Path) -> Iterator[None]:
    """Keeps a second run from writing to a folder at the same time.

    Args:
        out: folder of the run; made if it isn't there.

    Raises:
        UserError: a run writes to it already.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = locked(out / LOCK)
    try:
        lock.__enter__()
    except BlockingIOError:
        raise UserError(
            f"another run writes to {str(out)!r}: wait for its end, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _checkpoints(out: Path) -> list[Path]:
    """The folders of checkpoints, whole or not, the latest first."""
    found = {folder: folder.name.partition("-")[2] for folder in out.glob("checkpoint-*")}
    numbered = {folder: int(step) for folder, step in found.items() if step.isdecimal()}
    return sorted(numbered, key=lambda folder: numbered[folder], reverse=True)


def _is_cut(path: Path) -> bool:
    try:
        if path.name.endswith(".index.json"):
            shards = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
            return not all((path.parent / shard).is_file() for shard in shards)
        if path.suffix == ".safetensors":
            safe_open(path, "pt")
        elif path.suffix in (".pt", ".pth", ".bin"):
            zipfile.ZipFile(path).close()
        elif path.is_dir():  # of a run under FSDP
            return not (path / ".metadata").is_file()
    except (AttributeError, KeyError, OSError, SafetensorError, ValueError, zipfile.BadZipFile):
        return True
    return False


def _check_writable(out: Path) -> None:
    folder = next((one for one in (out, *out.absolute().parents) if one.exists()), out)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"can't write to OUT {str(out)!r}: {str(folder)!r} can't be written to")


def _settings(file: Path) -> TrainingConfig:
    found = settings_from_yaml(file, "the run's")
    for setting in fields(TrainingConfig):
        if setting.default is MISSING and setting.name not in found:
            raise UserError(
                f"{str(file)!r} has no {setting.name!r}, so it was cut: without the file, "
                "--resume goes on with the settings that are given"
            )
    return TrainingConfig(**found)
