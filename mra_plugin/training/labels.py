"""Fine-tuning for labels: of whole texts, and of words."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    EvalPrediction,
)

from mra_plugin.errors import UserError

from .config import TrainingConfig
from .losses import IGNORED, labelled_loss
from .models import check_padding, example_length, known_labels, load_model
from .prepared import PreparedTask
from .task_data import check_classify, check_tokens, read_examples

# The label of words that are no part of anything, by custom.
OUTSIDE = "O"
# Digits beyond which a label is a text.
_LONGEST_NUMBER = 100


def prepare_classify(config: TrainingConfig, tokenizer: Any) -> PreparedTask:
    """A label for each text.

    Raises:
        UserError: model, data and settings don't fit each other.
    """
    return _prepare(config, tokenizer, of_words=False)


def prepare_tokens(config: TrainingConfig, tokenizer: Any) -> PreparedTask:
    """A label for each word.

    Raises:
        UserError: model, data and settings don't fit each other.
    """
    if not tokenizer.is_fast:
        raise UserError(f"task 'tokens' needs a fast tokenizer, {config.model!r} has none")
    return _prepare(config, tokenizer, of_words=True)


def _prepare(config: TrainingConfig, tokenizer: Any, of_words: bool) -> PreparedTask:
    check_padding(config, tokenizer)
    train, held_out = read_examples(config, check_tokens if of_words else check_classify)
    names = _names(config, train)
    ids = {name: number for number, name in enumerate(names)}
    for row in held_out:
        for label in row["labels"]:
            if label not in ids:
                raise UserError(f"{row['where']}: no example to train on has label {label!r}")
    settings = {"num_labels": len(names), "label2id": ids, "id2label": dict(enumerate(names))}
    model_class: Any = (
        AutoModelForTokenClassification if of_words else AutoModelForSequenceClassification
    )
    model, notes = load_model(config, model_class, **settings)
    length = example_length(config, model)
    encode = _encode_words if of_words else _encode_text
    cut: list[str] = []
    sets = [
        [encode(row, tokenizer, length, ids, cut) for row in rows] for rows in (train, held_out)
    ]
    if cut:
        notes.append(f"{len(cut)} texts are cut at {length} tokens, such as {cut[0]}")
    return PreparedTask(
        model=model,
        train_data=sets[0],
        eval_data=sets[1] or None,
        collator=(DataCollatorForTokenClassification if of_words else DataCollatorWithPadding)(
            tokenizer
        ),
        loss=labelled_loss,
        keep=best_class,
        metrics=Scores(ids.get(OUTSIDE) if of_words else None, of_words),
        notes=notes,
    )


def _names(config: TrainingConfig, rows: list[dict[str, Any]]) -> list[str]:
    """The labels, in the checkpoint's order if it knows them all, otherwise sorted."""
    found = {label for row in rows for label in row["labels"]}
    known = known_labels(config)
    if found <= set(known.values()):
        return [known[number] for number in sorted(known)]

    def place(name: str) -> tuple[int, int, str]:
        is_number = name.isdecimal() and len(name) < _LONGEST_NUMBER
        return (0, int(name), name) if is_number else (1, 0, name)

    return sorted(found, key=place)


def _encode_text(
    row: dict[str, Any], tokenizer: Any, length: int, ids: dict[str, int], cut: list[str]
) -> dict[str, Any]:
    inputs = tokenizer(row["text"], verbose=False)
    if len(inputs["input_ids"]) > length:
        cut.append(row["where"])
        inputs = tokenizer(row["text"], truncation=True, max_length=length)
    return {**inputs, "labels": ids[row["labels"][0]]}


def _encode_words(
    row: dict[str, Any], tokenizer: Any, length: int, ids: dict[str, int], cut: list[str]
) -> dict[str, Any]:
    inputs = tokenizer(row["tokens"], is_split_into_words=True, verbose=False)
    if len(inputs["input_ids"]) > length:
        cut.append(row["where"])
        inputs = tokenizer(
            row["tokens"], is_split_into_words=True, truncation=True, max_length=length
        )
    # A word's label is that of its first token.
    labels, before = [], None
    for word in inputs.word_ids():
        first = word is not None and word != before
        labels.append(ids[row["labels"][word]] if first else IGNORED)
        before = word
    return {**inputs, "labels": labels}


def best_class(logits: Any, labels: Tensor) -> Tensor:
    """The best class by logits [..., classes], alone or first of a tuple."""
    best: Tensor = (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)
    return best


class Scores:
    """Share of right labels; for words, F1 as well, over labels other than `OUTSIDE`."""

    def __init__(self, outside: int | None, f1: bool) -> None:
        """Takes the number of the label that F1 leaves out, if any, and whether F1 is wanted."""
        self._outside = -1 if outside is None else outside
        self._f1 = f1

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """The scores, over everything that has a label."""
        truth = np.asarray(prediction.label_ids)
        found = np.asarray(prediction.predictions)[truth != IGNORED]
        truth = truth[truth != IGNORED]
        scores = {"accuracy": float((found == truth).mean())}
        if self._f1:
            right = ((found == truth) & (truth != self._outside)).sum()
            claimed, real = (found != self._outside).sum(), (truth != self._outside).sum()
            scores["f1"] = float(2 * right / max(claimed + real, 1))
        return scores
