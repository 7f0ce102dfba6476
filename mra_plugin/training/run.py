"""A training run, from its settings to a folder with the trained model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, PrinterCallback, Trainer, set_seed
from transformers.utils import logging

from mra_plugin.encoders.sentence_transformer import read_sentence_model, write_sentence_model
from mra_plugin.errors import UserError, first_line
from mra_plugin.files import move_each, write_whole
from mra_plugin.parallel.parameters import shard_for_accelerate

from .arguments import trainer_arguments
from .callbacks import Lines, NoStepLeftError, StopAtTheEnd
from .checkpoints import (
    SETTINGS,
    STATE,
    check_folder,
    check_optimizer,
    damaged_since,
    one_writer,
)
from .config import TrainingConfig
from .distillation import Distillation, DistillationTrainer
from .distilled import with_heads, write_closeness
from .divergence import StopDiverged
from .labels import prepare_classify, prepare_tokens
from .models import encoder_of, load_tokenizer, save_memory
from .prepared import PreparedTask
from .qa import prepare_qa
from .settings_file import settings_to_yaml
from .text_tasks import prepare_clm, prepare_distillation, prepare_mlm

# Where the trained model is written, in the folder of its run, before it takes its place there.
UNFINISHED = ".unfinished"
# What stands in the errors of torch.save where a file can't be written.
_UNWRITTEN = ("PytorchStreamWriter", "inline_container", "iostream error")

PREPARE = {
    "mlm": prepare_mlm,
    "clm": prepare_clm,
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
    with one_line_for_what_others_raise(out):
        _train(config, out, resume, say, versions)


def _train(
    config: TrainingConfig,
    out: Path,
    resume: bool,
    say: Callable[[str], None],
    versions: dict[str, str | None],
) -> None:
    checkpoint = check_folder(out, config, resume)
    # Refuses what could not be carried over, before any work.
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
    with one_writer(out) if main else nullcontext():
        if main:
            # Now that no other run can change it.
            if check_folder(out, config, resume) != checkpoint:
                raise UserError(f"another run wrote to {str(out)!r} meanwhile: start again")
            write_whole(out / SETTINGS, settings_to_yaml(config))
            for note in task.notes:
                say(note)
            if resume:
                for what in damaged_since(out, checkpoint):
                    say(what)
                say(f"going on from {checkpoint or 'the start: there is no whole checkpoint'}")
        _run(config, out, task, trainer, checkpoint, versions, say)
        if main and whole:  # what distillation heals stays the model that it was
            write_sentence_model(whole, out, max_length=None)


def _run(
    config: TrainingConfig,
    out: Path,
    task: PreparedTask,
    trainer: Trainer,
    checkpoint: Path | None,
    versions: dict[str, str | None],
    say: Callable[[str], None],
) -> None:
    main, distillation = trainer.is_world_process_zero(), task.distillation
    before = distillation.closeness.measure(encoder_of(task.model)) if distillation and main else []
    shard_for_accelerate(task.model, trainer.accelerator)
    diverged = StopDiverged()
    trainer.add_callback(diverged)
    started, loss = time.perf_counter(), None
    with suppress(NoStepLeftError):
        found = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        loss = found.training_loss
    seconds = None if checkpoint else time.perf_counter() - started
    diverged.check_end(task.model, loss, trainer.state.global_step, str(out))
    if task.eval_data:
        trainer.evaluate()
    if task.use_cache is not None:
        # A Trainer turns it off for the training, and would leave the trained model so.
        task.model.config.use_cache = task.use_cache
    trained = _save(config, out, trainer, distillation)
    if distillation and trained:
        after = distillation.closeness.measure(trained)
        device = str(trainer.args.device)
        write_closeness(config, out, before, after, seconds, device, versions, say)


def _save(
    config: TrainingConfig, out: Path, trainer: Trainer, distillation: Distillation | None
) -> PreTrainedModel | None:
    """Writes the trained model; returns the encoder in the main process of a distillation."""
    # Beside what an earlier run left, until all of it is there.
    unfinished, main, trained = out / UNFINISHED, trainer.is_world_process_zero(), None
    try:
        if main:
            shutil.rmtree(unfinished, ignore_errors=True)
        trainer.save_model(str(unfinished))
        if main:
            if distillation:
                trained = with_heads(config, unfinished, distillation.headless)
            trainer.state.save_to_json(str(unfinished / STATE))
            move_each(unfinished, out)
    finally:
        if main:
            shutil.rmtree(unfinished, ignore_errors=True)
    return trained


@contextmanager
def one_line_for_what_others_raise(out: Path) -> Iterator[None]:
    """Makes one message of a disk that is full, of files that can't be read, of too little memory.

    Args:
        out: folder of the run.

    Raises:
        UserError: says what happened.
    """
    try:
        yield
    except OSError as error:
        where = f": {str(error.filename)!r}" if error.filename else ""
        raise UserError(f"{error.strerror or first_line(error)}{where}") from error
    except SafetensorError as error:
        raise UserError(f"can't write to {str(out)!r}: {first_line(error)}") from error
    except torch.OutOfMemoryError as error:
        raise UserError(f"a smaller batch_size, or accumulate: {first_line(error)}") from error
    except RuntimeError as error:
        if not any(word in str(error) for word in _UNWRITTEN):
            raise
        raise UserError(
            f"can't write to {str(out)!r}, where the disk may be full: {first_line(error)}"
        ) from error


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
