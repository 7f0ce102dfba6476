"""The settings in the words of transformers' Trainer."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate.utils import parse_flag_from_env  # type: ignore[import-untyped]
from transformers import TrainingArguments

from mra_plugin.errors import UserError

from .config import TrainingConfig


def trainer_arguments(config: TrainingConfig, out: Path, evaluates: bool) -> TrainingArguments:
    """Arguments of the Trainer; makes this process part of a distributed run, if there is one.

    Args:
        config: of the run.
        out: folder of the run.
        evaluates: whether there is something to evaluate on.

    Raises:
        UserError: the batch can't be shared out, or the device lacks what is asked for.
    """
    try:
        args = TrainingArguments(
            output_dir=str(out),
            max_steps=config.steps or -1,
            num_train_epochs=config.epochs,
            gradient_accumulation_steps=config.accumulate,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup,
            bf16=config.bf16,
            fp16=config.fp16,
            seed=config.seed,
            data_seed=config.seed,
            logging_steps=config.log_every,
            logging_nan_inf_filter=False,
            save_steps=config.checkpoint_every,
            save_total_limit=config.keep_checkpoints,
            eval_strategy="steps" if evaluates else "no",
            eval_steps=config.eval_every,
            report_to=["tensorboard"],
            remove_unused_columns=False,
            label_names=["labels"],
            # Otherwise transformers would not see that CPU processes belong together.
            use_cpu=not torch.accelerator.is_available()
            or parse_flag_from_env("ACCELERATE_USE_CPU"),
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=not sys.stderr.isatty(),
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    if config.fp16 and args.device.type == "cpu":  # where it would be left out in silence
        raise UserError("fp16 needs a GPU; on a CPU, bf16 gives mixed precision")
    # One process has one GPU. With more, the Trainer would use DataParallel, where the loss of the
    # whole batch, computed in one place, would count once for each of them.
    args._n_gpu = min(1, args.n_gpu)
    shares = args.world_size * config.accumulate
    if config.batch_size % shares:
        raise UserError(
            f"batch_size must be a multiple of {shares} (processes times accumulate), got "
            f"{config.batch_size}"
        )
    args.per_device_train_batch_size = config.batch_size // shares
    args.per_device_eval_batch_size = args.per_device_train_batch_size
    return args
