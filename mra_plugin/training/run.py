"""A training run, from its settings to a folder with the trained model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer, set_seed
from transformers.utils import logging

from mra_plugin.parallel.parameters import shard_for_accelerate

from .arguments import trainer_arguments
from .callbacks import Lines, NoStepLeftError, StopAtTheEnd
from .checkpoints import SETTINGS, check_folder, check_optimizer
from .config import TrainingConfig
from .distillation import DistillationTrainer
from .distilled import write_closeness, write_whole
from .errors import TrainingError
from .labels import classify, tokens
from .models import encoder_of, load_tokenizer, save_memory
from .prepared import Work
from .qa import answers
from .text_tasks import distillation, masked_lm

TASKS = {"mlm": masked_lm, "classify": classify, "tokens": tokens, "qa": answers}


def train(
    config: TrainingConfig,
    out: Path,
    resume: bool,
    say: Callable[[str], None],
    versions: dict[str, str | None],
) -> None:
    """Trains, and writes model, tokenizer, log and settings to ``out``.

    Args:
        config: the settings.
        out: folder to write to.
        resume: whether to go on from the last checkpoint in ``out``.
        say: is told, in one process only, what the user should know.
        versions: of what is installed, for the records.

    Raises:
        TrainingError: settings, data and folder don't fit each other.
    """
    checkpoint = check_folder(out, config, resume)
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model, words=config.task == "tokens")
    prepare = TASKS[config.task] if config.distill is None else distillation
    work = prepare(config, tokenizer)
    try:
        trainer = _trainer(config, out, tokenizer, work)
    except ValueError as error:  # what the device or the model can't do
        raise TrainingError(str(error)) from None
    if checkpoint:
        check_optimizer(checkpoint, sharded=trainer.is_fsdp_enabled)
    main = trainer.is_world_process_zero()
    if main:
        out.mkdir(parents=True, exist_ok=True)
        (out / SETTINGS).write_text(config.yaml(), encoding="utf-8")
        for note in work.notes:
            say(note)
        if resume:
            say(f"going on from {checkpoint or 'the start: there is no checkpoint yet'}")
    heal = work.distillation
    before = heal.closeness.measure(encoder_of(work.model)) if heal and main else []
    shard_for_accelerate(work.model, trainer.accelerator)
    started = time.perf_counter()
    with suppress(NoStepLeftError):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = None if checkpoint else time.perf_counter() - started
    if work.eval_data:
        trainer.evaluate()
    trainer.save_model()
    trainer.save_state()
    if heal and main:
        after = heal.closeness.measure(write_whole(config, out, heal.headless))
        device = str(trainer.args.device)
        write_closeness(config, out, before, after, seconds, device, versions, say)


def _trainer(config: TrainingConfig, out: Path, tokenizer: Any, work: Work) -> Trainer:
    if config.gradient_checkpointing:
        save_memory(work.model)
    parts: dict[str, Any] = {
        "model": work.model,
        "args": trainer_arguments(config, out, evaluates=bool(work.eval_data)),
        "data_collator": work.collator,
        "train_dataset": work.train_data,
        "eval_dataset": work.eval_data,
        "processing_class": tokenizer,
    }
    if work.distillation is None:
        trainer = Trainer(
            **parts,
            compute_loss_func=work.loss,
            compute_metrics=work.metrics,
            preprocess_logits_for_metrics=work.keep,
        )
    else:
        trainer = DistillationTrainer(
            **parts, teacher=work.distillation.teacher, mlm_weight=config.mlm_weight
        )
        if trainer.is_fsdp_enabled:  # transformers collects them by classes that sharding changes
            raise TrainingError(
                "distill needs the hidden states of every layer, which a model under FSDP does not "
                "give: use torchrun without it"
            )
    trainer.add_callback(StopAtTheEnd())
    if trainer.args.disable_tqdm:
        logging.disable_progress_bar()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Lines())
    return trainer
