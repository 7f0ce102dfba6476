"""`mra train`: masked-LM training, fine-tuning and distillation."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import BadArgumentError, one_clear_line
from .options import ModelArgument, OutArgument
from .versions import installed_versions


def _option(help: str, metavar: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, show_default=False)


def train(
    context: typer.Context,
    model: ModelArgument,
    out: OutArgument,
    data: Annotated[
        list[str] | None, _option("File, folder or glob to train on; repeatable.", "PATH")
    ] = None,
    eval_data: Annotated[
        list[str] | None, _option("The same, to evaluate on; repeatable.", "PATH")
    ] = None,
    eval_share: Annotated[
        float | None, _option("Share of the data to hold out and evaluate on.", "SHARE")
    ] = None,
    task: Annotated[str | None, _option("mlm (default), classify, tokens or qa.", "TASK")] = None,
    config: Annotated[
        Path | None, _option("YAML file of settings; options win over it.", "FILE")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")
    ] = False,
    from_scratch: Annotated[
        bool | None, typer.Option(help="Random weights in place of MODEL's.", show_default=False)
    ] = None,
    attention: Annotated[
        str | None, _option("Attention to put in, see `mra info`.", "NAME")
    ] = None,
    block_per_row: Annotated[int | None, _option("Its exact blocks per row.", "N")] = None,
    distill: Annotated[
        str | None, _option("Exact teacher: folder, id, or `self`.", "TEACHER")
    ] = None,
    mlm_weight: Annotated[
        float | None, _option("Weight of the masked-LM loss in distillation.", "X")
    ] = None,
    closeness_lengths: Annotated[
        list[int] | None,
        _option("Tokens at which distillation reports closeness; repeatable.", "N"),
    ] = None,
    length: Annotated[
        int | None, _option("Tokens of an example; default: all that MODEL reads.", "N")
    ] = None,
    batch_size: Annotated[
        int | None, _option("Examples of a step, over all processes (8).", "N")
    ] = None,
    accumulate: Annotated[
        int | None, _option("Parts of a process's share of a batch (1).", "N")
    ] = None,
    steps: Annotated[int | None, _option("Steps to train; masked LM needs it.", "N")] = None,
    epochs: Annotated[float | None, _option("Passes over the data, for tasks (3).", "X")] = None,
    learning_rate: Annotated[float | None, _option("After the warm-up (5e-5).", "X")] = None,
    weight_decay: Annotated[float | None, _option("Of AdamW (0.01).", "X")] = None,
    warmup: Annotated[
        float | None, _option("Share of the steps that warm up (0.06).", "SHARE")
    ] = None,
    mask_share: Annotated[
        float | None, _option("Share of tokens that masked LM hides (0.15).", "SHARE")
    ] = None,
    seed: Annotated[int | None, _option("Of everything random (0).", "N")] = None,
    bf16: Annotated[
        bool | None, typer.Option(help="Mixed precision, bfloat16.", show_default=False)
    ] = None,
    fp16: Annotated[
        bool | None, typer.Option(help="Mixed precision, float16.", show_default=False)
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option(help="Less memory, more time.", show_default=False)
    ] = None,
    checkpoint_every: Annotated[
        int | None, _option("Steps between checkpoints (500).", "N")
    ] = None,
    keep_checkpoints: Annotated[int | None, _option("Checkpoints to keep (2).", "N")] = None,
    log_every: Annotated[int | None, _option("Steps between lines of the log (10).", "N")] = None,
    eval_every: Annotated[int | None, _option("Steps between evaluations (500).", "N")] = None,
) -> None:
    """Trains a model on long texts, or fine-tunes it for a task.

    The options can also come from a YAML file; OUT/training.yaml has those of the run. Works the
    same under `torchrun` and `accelerate launch`.

    Example: `mra train long/ trained/ --data texts/ --steps 1000 --eval-share 0.05`
    """
    with one_clear_line():
        options = {
            name: value
            for name, value in context.params.items()
            if value not in (None, [], ()) and name not in ("out", "config", "resume")
        }
        _run(options, out, config, resume)


def _run(options: dict[str, Any], out: Path, file: Path | None, resume: bool) -> None:
    try:
        from mra_plugin.training.config import TrainingConfig, settings_from_yaml
        from mra_plugin.training.errors import TrainingError
        from mra_plugin.training.run import train as run
    except ImportError as error:
        raise BadArgumentError(
            f'{error.name} is not installed: pip install "mra-plugin[train]"'
        ) from None
    try:
        settings = settings_from_yaml(file) if file else {}
        lists = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        run(
            TrainingConfig(**{"data": (), **settings, **lists}),
            out,
            resume,
            typer.echo,
            installed_versions(),
        )
    except TrainingError as error:
        raise BadArgumentError(str(error)) from None
