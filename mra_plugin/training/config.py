"""Everything that a training run is told, from options and YAML files."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mra_plugin.registry.names import nearest

from .errors import TrainingError

TASKS = ("mlm", "classify", "tokens", "qa")


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of one run; each is an option of `mra train` and a key of its YAML file.

    Attributes:
        model: checkpoint to start from, a folder or an id on the hub.
        data: files, folders or globs to train on.
        eval_data: the same, to evaluate on.
        eval_share: share of ``data`` that is held out to evaluate on, from 0 up to 1.
        task: one of `TASKS`.
        from_scratch: random weights in place of the checkpoint's.
        attention: name of a registered attention to put in; None leaves the checkpoint's.
        block_per_row: that attention's exact blocks per row of blocks.
        distill: the exact teacher, a folder or an id, or "self": ``model`` with exact attention.
        mlm_weight: weight of the masked-LM loss beside distillation; 0 leaves it out.
        closeness_lengths: tokens at which distillation reports how close the model is.
        length: tokens of an example; None means the most that the model can read.
        batch_size: examples of an optimizer step, over all processes.
        accumulate: parts that each process cuts its share of a batch into, to save memory.
        steps: optimizer steps; ``epochs`` where it is None.
        epochs: passes over the data, for tasks other than masked LM.
        learning_rate: at the end of the warm-up.
        weight_decay: of AdamW.
        warmup: share of the steps over which the learning rate rises, below 1.
        mask_share: share of the tokens that masked LM hides.
        seed: of everything random.
        bf16: mixed precision with bfloat16.
        fp16: mixed precision with float16.
        gradient_checkpointing: compute activations again on the way back, to save memory.
        checkpoint_every: steps from one checkpoint to the next.
        keep_checkpoints: checkpoints that are kept.
        log_every: steps from one line of the log to the next.
        eval_every: steps from one evaluation to the next.
    """

    model: str
    data: tuple[str, ...]
    eval_data: tuple[str, ...] = ()
    eval_share: float = 0.0
    task: str = "mlm"
    from_scratch: bool = False
    attention: str | None = None
    block_per_row: int | None = None
    distill: str | None = None
    mlm_weight: float = 0.0
    closeness_lengths: tuple[int, ...] = (512, 1024, 2048, 4096)
    length: int | None = None
    batch_size: int = 8
    accumulate: int = 1
    steps: int | None = None
    epochs: float = 3.0
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup: float = 0.06
    mask_share: float = 0.15
    seed: int = 0
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = False
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 10
    eval_every: int = 500

    def __post_init__(self) -> None:
        _check(self)

    def yaml(self) -> str:
        """The settings as a YAML file that `settings_from_yaml` reads."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


FIELDS: dict[str, Any] = typing.get_type_hints(TrainingConfig)


def settings_from_yaml(path: Path) -> dict[str, Any]:
    """Reads settings by name from a YAML file, each of its field's type.

    Raises:
        TrainingError: the file can't be read, or has an unknown key or a value of a wrong type.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"can't read --config {str(path)!r}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"--config {str(path)!r} is not YAML: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise TrainingError(f"--config {str(path)!r} must hold keys and values")
    for name in found:
        if name not in FIELDS:
            hint = nearest(str(name), FIELDS)
            raise TrainingError(f"--config {str(path)!r}: unknown key {name!r}{hint}")
    return {name: _typed(name, value, FIELDS[name]) for name, value in found.items()}


def _typed(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the type of its field."""
    if isinstance(kind, types.UnionType):
        kinds = typing.get_args(kind)
        return None if value is None else _typed(name, value, kinds[0])
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, list) else [value]
        return tuple(_typed(name, one, typing.get_args(kind)[0]) for one in values)
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 5e-5, without a point, for a text
        except (TypeError, ValueError):
            pass
    elif type(value) is kind:
        return value
    raise TrainingError(f"{name} must be of type {kind.__name__}, got {value!r}")


def _check(config: TrainingConfig) -> None:
    """Refuses values that no run could work with."""

    def require(holds: bool, name: str, what: str) -> None:
        if not holds:
            raise TrainingError(f"{name} must be {what}, got {getattr(config, name)!r}")

    require(bool(config.data), "data", "at least one file, folder or glob")
    require(config.task in TASKS, "task", f"one of {', '.join(TASKS)}")
    for name, kind in FIELDS.items():
        value = getattr(config, name)
        if kind in (int, int | None) and name != "seed" and value is not None:
            require(value > 0, name, "a positive whole number")
    require(config.seed >= 0, "seed", "0 or more")
    require(0 <= config.eval_share < 1, "eval_share", "at least 0 and below 1")
    require(0 <= config.warmup < 1, "warmup", "at least 0 and below 1")
    require(0 < config.mask_share < 1, "mask_share", "between 0 and 1")
    require(config.epochs > 0, "epochs", "positive")
    require(config.learning_rate > 0, "learning_rate", "positive")
    require(config.weight_decay >= 0, "weight_decay", "0 or more")
    require(config.mlm_weight >= 0, "mlm_weight", "0 or more")
    require(all(n > 0 for n in config.closeness_lengths), "closeness_lengths", "positive numbers")
    if config.bf16 and config.fp16:
        raise TrainingError("bf16 and fp16 exclude each other")
    if config.eval_data and config.eval_share:
        raise TrainingError("eval_data and eval_share exclude each other")
    if config.block_per_row is not None and config.attention is None:
        raise TrainingError("block_per_row is a parameter of attention: give attention as well")
    if config.task == "mlm" and config.steps is None:
        raise TrainingError("steps must be given: the text is a stream whose end is not known")
    if config.distill is not None and config.task != "mlm":
        raise TrainingError(f"distill goes with task 'mlm', got task {config.task!r}")
    if config.distill is None and config.mlm_weight:
        raise TrainingError("mlm_weight is of the loss beside distillation: give distill as well")
    if config.distill is not None and config.from_scratch:
        raise TrainingError("distill heals trained weights; it excludes from_scratch")
