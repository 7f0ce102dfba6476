"""What a run leaves in its folder, so that another can go on from there."""

from __future__ import annotations

import json
from pathlib import Path

from mra_plugin.errors import UserError

from .config import TrainingConfig
from .settings_file import settings_from_yaml

SETTINGS = "training.yaml"
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
    """The latest checkpoint that was written to its end; None if there is none.

    The Trainer writes its state last, so a folder without it was left by a kill.
    """
    complete = [folder for folder in out.glob("checkpoint-*") if _is_complete(folder)]
    return max(complete, key=lambda folder: int(folder.name.split("-")[1]), default=None)


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
            model is there that the run would replace.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"OUT must be a folder, got {str(out)!r}")
    if (out / SETTINGS).exists() and not resume:
        raise UserError(
            f"{str(out)!r} holds a run already: go on with --resume, or name another folder"
        )
    checkpoint = last_checkpoint(out) if resume else None
    if checkpoint is None and (out / "config.json").exists():
        raise UserError(
            f"{str(out)!r} holds a model, which this run would replace: name another folder"
        )
    if checkpoint is not None and (out / SETTINGS).exists():
        before = TrainingConfig(**settings_from_yaml(out / SETTINGS))
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


def _is_complete(folder: Path) -> bool:
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return folder.name.split("-")[1].isdecimal()
