"""A training run, from its settings to a folder with the trained model."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer, set_seed
from transformers.utils import logging

from mra_plugin.encoders.sentence_transformer import read_sentence_model, write_sentence_model
from mra_plugin.errors import UserError
from mra_plugin.parallel.parameters import shard_for_accelerate

from .arguments import trainer_arguments
from .callbacks import Lines, NoStepLeftError, StopAtTheEnd
from .checkpoints import SETTINGS, check_folder, check_optimizer
from .config import TrainingConfig
from .distillation import DistillationTrainer
from .distilled import write_closeness, write_whole
from .labels import prepare_classify, prepare_tokens
from .models import encoder_of, load_tokenizer, save_memory
from .prepared import PreparedTask
from .qa import prepare_qa
from .settings_file import settings_to_yaml
from .text_tasks import prepare_distillation, prepare_mlm

PREPARE = {
    "mlm": prepare_mlm,
    "classify": prepare_classify,
    "tokens": prepare_tokens,
    "qa": prepare_qa,
}


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
        UserError: settings, data and folder don't fit each other.
    """
    checkpoint = check_folder(out, config, resume)
    # What distillation heals stays the model that it was.
    whole = read_sentence_model(config.model) if config.distill else None
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model, words=config.task == "tokens")
    prepare = PREPARE[config.task] if config.distill is None else prepare_distillation
    task = prepare(config, tokenizer)
    try:
        trainer = _trainer(config, out, tokenizer, task)
    except ValueError as error:  # what the device or the model can't do
        raise UserError(str(error)) from None
    if checkpoint:
        check_optimizer(checkpoint, sharded=trainer.is_fsdp_enabled)
    main = trainer.is_world_process_zero()
    if main:
        out.mkdir(parents=True, exist_ok=True)
        (out / SETTINGS).write_text(settings_to_yaml(config), encoding="utf-8")
        for note in task.notes:
            say(note)
        if resume:
            say(f"going on from {checkpoint or 'the start: there is no checkpoint yet'}")
    distillation = task.distillation
    before = distillation.closeness.measure(encoder_of(task.model)) if distillation and main else []
    shard_for_accelerate(task.model, trainer.accelerator)
    started = time.perf_counter()
    with suppress(NoStepLeftError):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = None if checkpoint else time.perf_counter() - started
    if task.eval_data:
        trainer.evaluate()
    trainer.save_model()
    trainer.save_state()
    if distillation and main:
        after = distillation.closeness.measure(write_whole(config, out, distillation.headless))
        if whole:
            write_sentence_model(whole, out, max_length=None)
        device = str(trainer.args.device)
        write_closeness(config, out, before, after, seconds, device, versions, say)


def _trainer(config: TrainingConfig, out: Path, tokenizer: Any, task: PreparedTask) -> Trainer:
    if config.gradient_checkpointing:
        save_memory(task.model)
    parts: dict[str, Any] = {
        "model": task.model,
        "args": trainer_arguments(config, out, evaluates=bool(task.eval_data)),
        "data_collator": task.collator,
        "train_dataset": task.train_data,
        "eval_dataset": task.eval_data,
        "processing_class": tokenizer,
    }
    if task.distillation is None:
        trainer = Trainer(
            **parts,
            compute_loss_func=task.loss,
            compute_metrics=task.metrics,
            preprocess_logits_for_metrics=task.keep,
        )
    else:
        trainer = DistillationTrainer(
            **parts, teacher=task.distillation.teacher, mlm_weight=config.mlm_weight
        )
        if trainer.is_fsdp_enabled:  # transformers collects them by classes that sharding changes
            raise UserError(
                "distill needs the hidden states of every layer, which a model under FSDP does not "
                "give: use torchrun without it"
            )
    trainer.add_callback(StopAtTheEnd())
    if trainer.args.disable_tqdm:
        logging.disable_progress_bar()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(Lines())
    return trainer
