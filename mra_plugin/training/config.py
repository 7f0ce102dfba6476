"""The settings of a training run: defaults, what `mra train --help` says of them, and checks."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass, field
from typing import Any

from mra_plugin.errors import UserError

TASKS = ("mlm", "clm", "classify", "tokens", "qa")
# On text without labels, a stream whose end is not known.
STREAMED = ("mlm", "clm")


def _told(metavar: str | None, help: str) -> dict[str, str | None]:
    """Metadata of a field that is an option.

    Args:
        metavar: what the option takes, in a word; None for a switch.
        help: its line of help, with ``{}`` where the default belongs.
    """
    return {"metavar": metavar, "help": help}


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of one run; each is an option of `mra train` and a key of its YAML file.

    What a setting means, its line of help says; ``model`` is the command's argument MODEL.
    """

    model: str
    data: tuple[str, ...] = field(
        metadata=_told("PATH", "File, folder or glob to train on; repeatable.")
    )
    eval_data: tuple[str, ...] = field(
        default=(), metadata=_told("PATH", "The same, to evaluate on; repeatable.")
    )
    eval_share: float = field(
        default=0.0, metadata=_told("SHARE", "Share of the data to hold out and evaluate on.")
    )
    task: str = field(
        default="mlm", metadata=_told("TASK", "{} (default), clm, classify, tokens or qa.")
    )
    from_scratch: bool = field(
        default=False, metadata=_told(None, "Random weights in place of MODEL's.")
    )
    # None leaves what the checkpoint has.
    attention: str | None = field(
        default=None, metadata=_told("NAME", "Attention to put in, see `mra info`.")
    )
    block_per_row: int | None = field(
        default=None, metadata=_told("N", "Its exact blocks per row.")
    )
    preset: str | None = field(
        default=None, metadata=_told("NAME", "Its set of options, paper or close, if it is mra.")
    )
    # "self" is ``model`` with exact attention.
    distill: str | None = field(
        default=None, metadata=_told("TEACHER", "Exact teacher: folder, id, or `self`.")
    )
    mlm_weight: float = field(
        default=0.0, metadata=_told("X", "Weight of the masked-LM loss in distillation.")
    )
    closeness_lengths: tuple[int, ...] = field(
        default=(512, 1024, 2048, 4096),
        metadata=_told("N", "Tokens at which distillation reports closeness; repeatable."),
    )
    length: int | None = field(
        default=None, metadata=_told("N", "Tokens of an example; default: all that MODEL reads.")
    )
    batch_size: int = field(
        default=8, metadata=_told("N", "Examples of a step, over all processes ({}).")
    )
    # To save memory; the result does not depend on it.
    accumulate: int = field(
        default=1, metadata=_told("N", "Parts of a process's share of a batch ({}).")
    )
    # None trains for ``epochs``.
    steps: int | None = field(
        default=None, metadata=_told("N", "Steps to train; mlm and clm need it.")
    )
    epochs: float = field(default=3.0, metadata=_told("X", "Passes over the data, for tasks ({})."))
    learning_rate: float = field(default=5e-5, metadata=_told("X", "After the warm-up ({})."))
    weight_decay: float = field(default=0.01, metadata=_told("X", "Of AdamW ({})."))
    warmup: float = field(
        default=0.06, metadata=_told("SHARE", "Share of the steps that warm up ({}).")
    )
    mask_share: float = field(
        default=0.15, metadata=_told("SHARE", "Share of tokens that masked LM hides ({}).")
    )
    seed: int = field(default=0, metadata=_told("N", "Of everything random ({})."))
    bf16: bool = field(default=False, metadata=_told(None, "Mixed precision, bfloat16."))
    fp16: bool = field(default=False, metadata=_told(None, "Mixed precision, float16."))
    # Computes activations again on the way back.
    gradient_checkpointing: bool = field(
        default=False, metadata=_told(None, "Less memory, more time.")
    )
    checkpoint_every: int = field(
        default=500, metadata=_told("N", "Steps between checkpoints ({}).")
    )
    keep_checkpoints: int = field(default=2, metadata=_told("N", "Checkpoints to keep ({})."))
    log_every: int = field(default=10, metadata=_told("N", "Steps between lines of the log ({})."))
    eval_every: int = field(default=500, metadata=_told("N", "Steps between evaluations ({})."))

    def __post_init__(self) -> None:
        _check(self)


# More of anything is a slip of the keyboard, and would fail somewhere below.
_MOST = 2**31 - 1

# The type of each setting, by its name.
TYPES: dict[str, Any] = typing.get_type_hints(TrainingConfig)


def _check(config: TrainingConfig) -> None:
    """Refuses values that no run could work with."""

    def require(holds: bool, name: str, what: str) -> None:
        if not holds:
            raise UserError(f"{name} must be {what}, got {getattr(config, name)!r}")

    require(bool(config.data), "data", "at least one file, folder or glob")
    require(config.task in TASKS, "task", f"one of {', '.join(TASKS)}")
    for name, kind in TYPES.items():
        value = getattr(config, name)
        if kind in (int, int | None) and name != "seed" and value is not None:
            require(value > 0, name, "a positive whole number")
            require(value <= _MOST, name, f"at most {_MOST}")
        if kind is float:
            require(math.isfinite(value), name, "a finite number")
    require(0 <= config.seed < 2**32, "seed", f"from 0 to {2**32 - 1}")
    require(0 <= config.eval_share < 1, "eval_share", "at least 0 and below 1")
    require(0 <= config.warmup < 1, "warmup", "at least 0 and below 1")
    require(0 < config.mask_share < 1, "mask_share", "between 0 and 1")
    require(config.epochs > 0, "epochs", "positive")
    require(config.learning_rate > 0, "learning_rate", "positive")
    require(config.weight_decay >= 0, "weight_decay", "0 or more")
    require(config.mlm_weight >= 0, "mlm_weight", "0 or more")
    lengths = config.closeness_lengths
    fit = bool(lengths) and all(0 < length <= _MOST for length in lengths)
    require(fit, "closeness_lengths", f"positive numbers up to {_MOST}, at least one")
    if config.bf16 and config.fp16:
        raise UserError("bf16 and fp16 exclude each other")
    if config.eval_data and config.eval_share:
        raise UserError("eval_data and eval_share exclude each other")
    if config.block_per_row is not None and config.attention is None:
        raise UserError("block_per_row is a parameter of attention: give attention as well")
    if config.preset is not None and config.attention != "mra":
        raise UserError(
            f"preset is a set of options of attention 'mra': give attention 'mra' as well, "
            f"got {config.attention!r}"
        )
    if config.task in STREAMED and config.steps is None:
        raise UserError("steps must be given: the text is a stream whose end is not known")
    if config.distill is not None and config.task != "mlm":
        raise UserError(f"distill goes with task 'mlm', got task {config.task!r}")
    if config.distill is None and config.mlm_weight:
        raise UserError("mlm_weight is of the loss beside distillation: give distill as well")
    if config.distill is not None and config.from_scratch:
        raise UserError("distill heals trained weights; it excludes from_scratch")
