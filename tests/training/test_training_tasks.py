"""Fine-tuning, from JSON lines to predictions of a model loaded from OUT."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.letter_data import save_lines
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from typer.testing import Result

from mra_plugin.training.qa import best_span

Train = Callable[..., Result]
SETTINGS = ("--eval-share", 0.2, "--learning-rate", 1e-2, "--attention", "mra")


def rows(task: str, count: int = 100) -> Iterator[dict[str, Any]]:
    numbers = random.Random(0)
    for index in range(count):
        low = index % 2 == 0
        letters = numbers.choices("abcdefg" if low else "uvwxy", k=numbers.randint(4, 20))
        if task == "classify":
            yield {"text": " ".join(letters), "label": "low" if low else "high"}
        elif task == "tokens":
            letters = numbers.choices("abcdef", k=len(letters))
            yield {"tokens": letters, "labels": ["V" if one in "ae" else "O" for one in letters]}
        else:
            letters[numbers.randrange(len(letters))] = "z"
            context = " ".join(letters)
            answer = {"text": "z", "start": context.index("z")}
            yield {"question": "z", "context": context, "answers": [answer]}


@pytest.fixture
def tuned(train: Train, bert: Path, tmp_path: Path) -> Callable[[str], Path]:
    def tune(task: str) -> Path:
        data = save_lines(tmp_path / "data.jsonl", rows(task))
        result = train(
            bert, tmp_path / "out", "--task", task, "--data", data, "--epochs", 4, *SETTINGS
        )
        assert result.exit_code == 0, result.output
        assert "start at random" in result.output
        assert "5 tensors of the checkpoint are not used, such as cls.predict" in result.output
        score = "exact_match" if task == "qa" else "accuracy"
        assert f"eval_{score} 1  " in result.output
        return tmp_path / "out"

    return tune


def outputs(model: Any, out: Path, *texts: Any, **options: Any) -> Any:
    inputs = AutoTokenizer.from_pretrained(out)(*texts, return_tensors="pt", **options)
    with torch.inference_mode():
        return model(**inputs)


def test_classify(tuned: Callable[[str], Path]) -> None:
    out = tuned("classify")
    model = AutoModelForSequenceClassification.from_pretrained(out)
    for text, label in (("a b c d", "low"), ("u v w x", "high")):
        assert model.config.id2label[int(outputs(model, out, text).logits.argmax())] == label


def test_tokens(tuned: Callable[[str], Path]) -> None:
    out = tuned("tokens")
    model = AutoModelForTokenClassification.from_pretrained(out)
    logits = outputs(model, out, ["b", "a", "e", "c"], is_split_into_words=True).logits
    found = [model.config.id2label[number] for number in logits[0, 1:-1].argmax(-1).tolist()]
    assert found == ["O", "V", "V", "O"]


def test_qa(tuned: Callable[[str], Path]) -> None:
    out = tuned("qa")
    model = AutoModelForQuestionAnswering.from_pretrained(out)
    found = outputs(model, out, "z", "a b c z d")
    # [CLS] z [SEP] a b c z
    assert found.start_logits[0, 3:].argmax() == found.end_logits[0, 3:].argmax() == 3


def test_the_best_span_has_its_start_first() -> None:
    start, end = np.array([0.0, 1.0, 5.0, 0.0]), np.array([0.0, 9.0, 3.0, 2.0])
    assert best_span(start, end) == (1, 1)


def test_what_is_too_long_is_said(train: Train, bert: Path, tmp_path: Path) -> None:
    near = {"text": "a", "start": 0}
    far = {"text": "z", "start": 100}
    context = "a" + " b" * 49 + " z"
    lines = [
        {"question": "a", "context": context, "answers": [answer]} for answer in (near, far, near)
    ]
    data = save_lines(tmp_path / "d.jsonl", lines)
    result = train(
        bert, tmp_path / "out", "--task", "qa", "--data", data, "--length", 40, "--steps", 1
    )
    assert f"3 contexts are cut at 40 tokens, such as {data}:1" in result.output
    assert "1 of them lost their answer: not trained on" in result.output


def test_white_space_around_an_answer(train: Train, bert: Path, tmp_path: Path) -> None:
    line = {"question": "z", "context": "a b z c", "answers": [{"text": " z ", "start": 3}]}
    data = save_lines(tmp_path / "d.jsonl", [line])
    result = train(bert, tmp_path / "out", "--task", "qa", "--data", data, "--steps", 1)
    assert result.exit_code == 0, result.output


def test_labels_keep_the_checkpoints_numbers(
    train: Train, tuned: Callable[[str], Path], tmp_path: Path
) -> None:
    out = tuned("classify")
    data = save_lines(tmp_path / "one.jsonl", [{"text": "a b", "label": "low"}])
    again = tmp_path / "again"
    result = train(out, again, "--task", "classify", "--data", data, "--steps", 1)
    assert result.exit_code == 0, result.output
    assert "start at random" not in result.output
    model = AutoModelForSequenceClassification.from_pretrained(again)
    assert model.config.id2label == {0: "high", 1: "low"}


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("classify", '{"text": "a" "label": "b"}', "d.jsonl:2:14: Expecting ',' delimiter"),
        ("classify", {"text": "a"}, "d.jsonl:2: field 'label' must be a text or a whole number"),
        ("classify", {"label": "low"}, "d.jsonl:2: field 'text' must be a text, got None"),
        ("tokens", {"tokens": ["a", 3], "labels": ["V", "O"]}, "field 'tokens[1]' must be a text"),
        ("tokens", {"tokens": ["a"], "labels": []}, "field 'labels' must be a list of texts"),
        (
            "tokens",
            {"tokens": ["a", "b"], "labels": ["V"]},
            "field 'labels' must be as long as tokens (2), got ['V']",
        ),
        (
            "qa",
            {"question": "a", "context": "b", "answers": []},
            """field 'answers' must be a list of {"text", "start"}, got []""",
        ),
        (
            "qa",
            {"question": "a", "context": "b c", "answers": [{"text": "c", "start": 0}]},
            "field 'answers[0].start' must be where 'c' stands in context, got 0",
        ),
    ],
)
def test_a_bad_line_is_named(
    train: Train, bert: Path, tmp_path: Path, task: str, line: object, message: str
) -> None:
    data = save_lines(tmp_path / "d.jsonl", [next(rows(task)), line])
    result = train(bert, tmp_path / "out", "--task", task, "--data", data)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_label_that_was_not_trained_on(train: Train, bert: Path, tmp_path: Path) -> None:
    data = save_lines(tmp_path / "d.jsonl", rows("classify", 4))
    other = save_lines(tmp_path / "e.jsonl", [{"text": "a", "label": "middle"}])
    result = train(
        bert, tmp_path / "out", "--task", "classify", "--data", data, "--eval-data", other
    )
    assert f"{other}:1: no example to train on has label 'middle'" in result.stderr
