"""Labelled examples from JSON lines, each checked against its task's schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mra_plugin.errors import UserError

from .config import TrainingConfig
from .text_data import JSON_LINES, find_files, is_held_out, read_json_lines


@dataclass(frozen=True)
class Line:
    """A line of a JSON lines file.

    Attributes:
        file: its file.
        number: of the line, from 1.
        content: what it holds.
    """

    file: str
    number: int
    content: dict[str, Any]

    def fail(self, field: str, wanted: str, value: Any) -> NoReturn:
        """Raises a `UserError` that names line and field."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise UserError(f"{self.file}:{self.number}: field {field!r} must be {wanted}, got {shown}")

    def text(self, field: str) -> str:
        """A field that must hold some text."""
        value = self.content.get(field)
        if not isinstance(value, str) or not value.strip():
            self.fail(field, "a text", value)
        return value

    def texts(self, field: str) -> list[str]:
        """A field that must hold a list of texts, at least one."""
        value = self.content.get(field)
        if not isinstance(value, list) or not value:
            self.fail(field, "a list of texts", value)
        for index, one in enumerate(value):
            if not isinstance(one, str) or not one:
                self.fail(f"{field}[{index}]", "a text", one)
        return value


def check_classify(line: Line) -> dict[str, Any]:
    """{"text", "label"}; the label is a text or a whole number."""
    label = line.content.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        line.fail("label", "a text or a whole number", label)
    return {"text": line.text("text"), "labels": [str(label)]}


def check_tokens(line: Line) -> dict[str, Any]:
    """{"tokens", "labels"}: words, and a label for each."""
    words, labels = line.texts("tokens"), line.texts("labels")
    if len(words) != len(labels):
        line.fail("labels", f"as long as tokens ({len(words)})", labels)
    return {"tokens": words, "labels": labels}


def check_qa(line: Line) -> dict[str, Any]:
    """{"question", "context", "answers": [{"text", "start"}]}: start counts characters from 0."""
    context, answers = line.text("context"), line.content.get("answers")
    if not isinstance(answers, list) or not answers:
        line.fail("answers", 'a list of {"text", "start"}', answers)
    for index, answer in enumerate(answers):
        name = f"answers[{index}]"
        if not isinstance(answer, dict):
            line.fail(name, '{"text", "start"}', answer)
        text, start = answer.get("text"), answer.get("start")
        if not isinstance(text, str) or not text.strip():
            line.fail(f"{name}.text", "a text", text)
        if type(start) is not int or start < 0:
            line.fail(f"{name}.start", "the place of its first character in context", start)
        if context[start : start + len(text)] != text:
            line.fail(f"{name}.start", f"where {text[:30]!r} stands in context", start)
    return {"question": line.text("question"), "context": context, "answers": answers}


def read_examples(
    config: TrainingConfig, check: Callable[[Line], dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads all examples of a task, to train on and to evaluate on.

    Args:
        config: of the run.
        check: gives the example that a line holds, or refuses the line.

    Returns:
        (examples to train on, examples to evaluate on), each with its ``where``: "FILE:LINE".

    Raises:
        UserError: a line is wrong, a file is no JSON lines file, or no example is left.
    """
    rows = _read("data", config.data, check)
    if config.eval_data:
        train, held_out = rows, _read("eval_data", config.eval_data, check)
    else:
        train, held_out = [], []
        for row in rows:
            # By content, so that copies stay together.
            content = json.dumps({**row, "where": None}, sort_keys=True)
            (held_out if is_held_out(content, config.eval_share) else train).append(row)
    if not train:
        raise UserError("data holds no example to train on")
    if (config.eval_data or config.eval_share) and not held_out:
        raise UserError("no example is left to evaluate on")
    return train, held_out


def _read(
    option: str, patterns: Sequence[str], check: Callable[[Line], dict[str, Any]]
) -> list[dict[str, Any]]:
    rows = []
    for file in find_files(option, patterns):
        if not file.endswith(JSON_LINES):
            raise UserError(f"{option}: {file!r} must be JSON lines ({', '.join(JSON_LINES)})")
        for number, content in read_json_lines(file):
            row = check(Line(file, number, content))
            rows.append({**row, "where": f"{file}:{number}"})
    return rows
