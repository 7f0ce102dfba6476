"""What distillation leaves behind: the whole model, and how much closer it came."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mra_plugin.encoders.loading import load_checkpoint
from mra_plugin.files import write_whole

from .config import TrainingConfig
from .models import encoder_of, put_attention

FIGURES = "closeness.json"


def with_heads(config: TrainingConfig, folder: Path, headless: bool) -> PreTrainedModel:
    """Gives a trained encoder its heads back, in the folder that it was written to.

    Args:
        config: of the run.
        folder: with the trained model.
        headless: whether it is the encoder alone.

    Returns:
        The trained encoder, in evaluation mode.
    """
    trained = load_checkpoint(str(folder)).model
    if not headless:
        return encoder_of(trained)
    complete = load_checkpoint(config.model).model
    complete.float()
    put_attention(complete, config)
    complete.base_model.load_state_dict(trained.state_dict())
    complete.save_pretrained(folder)
    complete.eval()
    return encoder_of(complete)


def write_closeness(
    config: TrainingConfig,
    out: Path,
    before: list[dict[str, float]],
    after: list[dict[str, float]],
    seconds: float | None,
    device: str,
    versions: dict[str, str | None],
    say: Callable[[str], None],
) -> None:
    """Writes the figures to ``out`` and says them.

    Args:
        config: of the run.
        out: its folder.
        before: what `TeacherCloseness.measure` found before training.
        after: and after it.
        seconds: that training took; None if it was resumed.
        device: that it trained on.
        versions: of what is installed.
        say: is told one line per length.
    """
    figures: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "device": device,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "settings": dataclasses.asdict(config),
        "before": before,
        "after": after,
    }
    write_whole(out / FIGURES, json.dumps(figures, indent=2) + "\n")
    for old, new in zip(before, after, strict=True):
        say(
            f"{old['tokens']} tokens: token cosine {old['token_cosine']:.4f} -> "
            f"{new['token_cosine']:.4f}, sentence cosine {old['sentence_cosine']:.4f} -> "
            f"{new['sentence_cosine']:.4f}"
        )
