"""Fine-tuning for questions whose answers stand in a long text."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, DataCollatorWithPadding, EvalPrediction

from mra_plugin.errors import UserError

from .config import TrainingConfig
from .losses import IGNORED, loss_of_logits
from .models import check_padding, example_length, load_model
from .prepared import PreparedTask
from .task_data import check_qa, read_examples


def prepare_qa(config: TrainingConfig, tokenizer: Any) -> PreparedTask:
    """Start and end of an answer in its context.

    Raises:
        UserError: model, data and settings don't fit each other.
    """
    if not tokenizer.is_fast:
        raise UserError(f"task 'qa' needs a fast tokenizer, {config.model!r} has none")
    check_padding(config, tokenizer)
    if tokenizer.padding_side != "right":
        raise UserError(
            f"task 'qa' needs a tokenizer that pads on the right, that of {config.model!r} pads on "
            f"the {tokenizer.padding_side}"
        )
    train, held_out = read_examples(config, check_qa)
    model, notes = load_model(config, AutoModelForQuestionAnswering)
    length = example_length(config, model)
    encoded = [[_encode(row, tokenizer, length) for row in rows] for rows in (train, held_out)]
    cut = [row["where"] for rows in encoded for row in rows if row["cut"]]
    if cut:
        notes.append(f"{len(cut)} contexts are cut at {length} tokens, such as {cut[0]}")
    train_data = [row for row in encoded[0] if row["labels"][0] != IGNORED]
    if len(train_data) < len(train):
        notes.append(f"{len(train) - len(train_data)} of them lost their answer: not trained on")
    if not train_data:
        raise UserError(f"no answer lies within the first {length} tokens")
    return PreparedTask(
        model=model,
        train_data=[_inputs(row) for row in train_data],
        eval_data=[_inputs(row) for row in encoded[1]] or None,
        collator=DataCollatorWithPadding(tokenizer),
        loss=span_loss,
        metrics=AnswerScores(held_out, encoded[1]),
        notes=notes,
    )


def span_loss(
    outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Cross-entropy of starts and ends.

    Args:
        outputs: with ``start_logits`` and ``end_logits``, [B, N] each.
        labels: first and last token of the answers, [B, 2].
        num_items_in_batch: as for `losses.labelled_loss`.
    """
    logits = torch.stack((outputs.start_logits, outputs.end_logits), 1)
    return loss_of_logits(logits, labels, num_items_in_batch)


def best_span(start: np.ndarray, end: np.ndarray) -> tuple[int, int]:
    """First and last token of the span with the highest sum of logits [N] and [N]."""
    best_starts = np.maximum.accumulate(start)
    last = int((best_starts + end).argmax())
    return int(start[: last + 1].argmax()), last


class AnswerScores:
    """Exact match and F1 of the answers' words, the better of each question's answers."""

    def __init__(self, rows: list[dict[str, Any]], encoded: list[dict[str, Any]]) -> None:
        """Takes the examples of the evaluation, in its order, as read and as encoded."""
        self._rows = rows
        self._encoded = encoded

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """The scores, averaged over the questions."""
        predictions: Any = prediction.predictions
        starts, ends = predictions[:2]
        exact, f1 = [], []
        for row, encoded, start, end in zip(self._rows, self._encoded, starts, ends, strict=True):
            text = _read_answer(row["context"], encoded["places"], start, end)
            pairs = [(_words(text), _words(one["text"])) for one in row["answers"]]
            exact.append(max(float(found == true) for found, true in pairs))
            f1.append(max(_f1(found, true) for found, true in pairs))
        return {"exact_match": float(np.mean(exact)), "f1": float(np.mean(f1))}


def _encode(row: dict[str, Any], tokenizer: Any, length: int) -> dict[str, Any]:
    question, context = row["question"], row["context"]
    inputs = tokenizer(question, context, verbose=False, return_offsets_mapping=True)
    cut = len(inputs["input_ids"]) > length
    if cut:
        try:
            inputs = tokenizer(
                question,
                context,
                truncation="only_second",
                max_length=length,
                return_offsets_mapping=True,
            )
        except Exception as error:
            raise UserError(f"{row['where']}: the question leaves no room: {error}") from None
    places = [
        place if sequence == 1 else None
        for place, sequence in zip(inputs.pop("offset_mapping"), inputs.sequence_ids(), strict=True)
    ]
    answer = row["answers"][0]
    text = answer["text"].rstrip()  # white space is in no token
    start, end = answer["start"] + len(text) - len(text.lstrip()), answer["start"] + len(text)
    first, last = (inputs.char_to_token(at, sequence_index=1) for at in (start, end - 1))
    found = first is not None and last is not None
    return {
        "inputs": dict(inputs),
        "labels": [first, last] if found else [IGNORED, IGNORED],
        "places": places,
        "where": row["where"],
        "cut": cut,
    }


def _inputs(row: dict[str, Any]) -> dict[str, Any]:
    return {**row["inputs"], "labels": row["labels"]}


def _read_answer(
    context: str, places: list[tuple[int, int] | None], start: np.ndarray, end: np.ndarray
) -> str:
    """The answer that logits [N or more] point to, among the context's tokens."""
    inside = np.array([place is not None for place in places])
    if not inside.any():
        return ""
    first, last = best_span(
        *(np.where(inside, logits[: len(places)], -np.inf) for logits in (start, end))
    )
    left, right = places[first], places[last]
    return context[left[0] : right[1]] if left and right else ""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _f1(found: list[str], true: list[str]) -> float:
    if not found or not true:
        return float(found == true)
    common = sum((Counter(found) & Counter(true)).values())
    return 2 * common / (len(found) + len(true))
