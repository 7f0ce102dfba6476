"""Training on plain text: masked and causal language modelling, and distillation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from mra_plugin.encoders.framing import frame_of
from mra_plugin.encoders.loading import load_checkpoint
from mra_plugin.encoders.positions import longest_input
from mra_plugin.errors import UserError

from .config import TrainingConfig
from .distillation import Distillation, load_teacher, without_dropout
from .losses import IGNORED, labelled_loss
from .masking import NumberedMasking, example_losses, padded, perplexity
from .models import encoder_of, example_length, load_model, put_attention
from .packing import PackedStream, packed_list
from .prepared import PreparedTask
from .teacher_closeness import TeacherCloseness
from .text_data import Documents, documents, find_files

# Examples that perplexity is measured on, at most.
EVALUATED = 256


def prepare_mlm(config: TrainingConfig, tokenizer: Any) -> PreparedTask:
    """Masked language modelling on packed text.

    Raises:
        UserError: model, data and settings don't fit each other.
    """
    if tokenizer.mask_token is None:
        raise UserError(f"the tokenizer of {config.model!r} has no mask token to train with")
    model, notes = load_model(config, AutoModelForMaskedLM)
    length = example_length(config, model)
    train_data, eval_data = packed_data(config, tokenizer, length, EVALUATED)
    return PreparedTask(
        model=model,
        train_data=train_data,
        eval_data=eval_data,
        collator=NumberedMasking(tokenizer, mlm_probability=config.mask_share, seed=config.seed),
        loss=labelled_loss,
        keep=example_losses,
        metrics=perplexity,
        notes=notes,
    )


def prepare_clm(config: TrainingConfig, tokenizer: Any) -> PreparedTask:
    """Causal language modelling on packed text, for decoders.

    Raises:
        UserError: model, data and settings don't fit each other.
    """
    model, notes = load_model(config, AutoModelForCausalLM)
    length = example_length(config, model)
    train_data, eval_data = packed_data(config, tokenizer, length, EVALUATED)
    return PreparedTask(
        model=model,
        train_data=train_data,
        eval_data=eval_data,
        collator=NextWords(tokenizer.pad_token_id),
        loss=labelled_loss,
        keep=example_losses,
        metrics=perplexity,
        notes=notes,
    )


def prepare_distillation(config: TrainingConfig, tokenizer: Any) -> PreparedTask:
    """Distillation from an exact teacher on packed text, with masked LM beside it if wanted.

    Raises:
        UserError: model, teacher, data and settings don't fit each other.
    """
    if not config.eval_data and not config.eval_share:
        raise UserError("distill reports closeness on held-out text: give eval_data or eval_share")
    masked = config.mlm_weight > 0
    model, notes = load_model(config, AutoModelForMaskedLM) if masked else (_whole(config), [])
    length = example_length(config, model)
    train_data, _ = packed_data(config, tokenizer, length, 1)
    limit = longest_input(model) or max(config.closeness_lengths)
    lengths = [tokens for tokens in config.closeness_lengths if tokens <= limit]
    teacher = load_teacher(config, model, max([length, *lengths]))
    closeness = TeacherCloseness(teacher, held_out(config), tokenizer, lengths)
    left_out = sorted(set(config.closeness_lengths) - set(closeness.lengths))
    if left_out:
        notes.append(f"no closeness at {left_out}: beyond the model or the held-out text")
    trained = model if masked else encoder_of(model)
    without_dropout(trained)
    for name, weight in trained.named_parameters():
        # Hidden states don't depend on it.
        if "pooler" in name.split("."):
            weight.requires_grad_(False)
    collator = NumberedMasking(tokenizer, mlm_probability=config.mask_share, seed=config.seed)
    return PreparedTask(
        model=trained,
        train_data=train_data,
        eval_data=None,
        collator=collator if masked else PlainRows(tokenizer.pad_token_id),
        notes=notes,
        distillation=Distillation(teacher, closeness, headless=trained is not model),
    )


class NextWords:
    """Makes batches of packed examples, whose labels are the words behind each."""

    def __init__(self, padding: int | None) -> None:
        """Takes the id of the padding token."""
        self._padding = padding

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels``, int64 [B, N] each.

        The label of a token is the next one, so logits and labels of one place belong together;
        the last has none.
        """
        batch = padded([torch.tensor(one["input_ids"]) for one in examples], self._padding)
        following = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)[:, 1:]
        return {**batch, "labels": functional.pad(following, (0, 1), value=IGNORED)}


class PlainRows:
    """Makes batches of packed examples, nothing masked."""

    def __init__(self, padding: int | None) -> None:
        """Takes the id of the padding token."""
        self._padding = padding

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, int64 [B, N] both."""
        return padded([torch.tensor(one["input_ids"]) for one in examples], self._padding)


def packed_data(
    config: TrainingConfig, tokenizer: Any, length: int, evaluated: int
) -> tuple[PackedStream, list[dict[str, Any]] | None]:
    """Examples of packed text.

    Args:
        config: of the run.
        tokenizer: of the model.
        length: tokens of an example.
        evaluated: examples to evaluate on, at most.

    Returns:
        (endless stream to train on, list to evaluate on if the settings ask for it).

    Raises:
        UserError: there is no text, or no room for it.
    """
    if length <= frame_of(tokenizer).size:
        raise UserError(
            f"length must be more than the {frame_of(tokenizer).size} special tokens that the "
            f"model puts around any text, got {length}"
        )
    files = find_files("data", config.data)
    stream = PackedStream(documents(files, config.eval_share), tokenizer, length, config.seed)
    if not config.eval_data and not config.eval_share:
        return stream, None
    eval_data = packed_list(held_out(config), tokenizer, length, evaluated)
    if not eval_data:
        what = f"eval_share={config.eval_share}" if config.eval_share else "eval_data"
        raise UserError(f"no text was held out by {what}")
    return stream, eval_data


def held_out(config: TrainingConfig) -> Documents:
    """The documents to evaluate on."""
    if config.eval_data:
        return documents(find_files("eval_data", config.eval_data))
    return documents(find_files("data", config.data), config.eval_share, held_out=True)


def _whole(config: TrainingConfig) -> PreTrainedModel:
    """The checkpoint as the class that it was saved from, with the attention asked for."""
    model = load_checkpoint(config.model).model
    model.float()
    put_attention(model, config)
    return model
