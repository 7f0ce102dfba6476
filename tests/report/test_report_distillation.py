"""Figures of `mra train --distill` in a report."""

from collections.abc import Callable
from typing import Any

import pytest

from mra_plugin.errors import UserError
from mra_plugin.report.results import Results
from mra_plugin.report.sections import NAMES, section
from mra_plugin.report.update import updated

Read = Callable[..., list[Results]]
PAGE = "<!-- mra report: distillation -->\n<!-- end of mra report -->\n"


def figures(**changes: Any) -> dict[str, Any]:
    """What a run of 240 steps leaves in closeness.json."""
    content = {
        "date": "2026-02-04T10:00:00+00:00",
        "versions": {"torch": "2.13.0", "xformers": None},
        "threads": 2,
        "seconds": 600.0,
        "settings": {"steps": 240, "batch_size": 2, "length": 1024},
        "before": [
            {"tokens": 512, "examples": 4, "token_cosine": 0.9671, "sentence_cosine": 0.9649},
            {"tokens": 4096, "examples": 4, "token_cosine": 0.9224, "sentence_cosine": 0.9051},
        ],
        "after": [
            {"tokens": 512, "examples": 4, "token_cosine": 0.9763, "sentence_cosine": 0.978},
            {"tokens": 4096, "examples": 4, "token_cosine": 0.9651, "sentence_cosine": 0.9684},
        ],
    }
    return content | changes


def test_before_and_after(read: Read) -> None:
    new = updated(PAGE, read(figures()))
    assert "240 steps of 2 examples of 1024 tokens (10 minutes, 2 CPU threads):" in new
    assert (
        "| 512 | 0.967 | 0.976 | 0.965 | 0.978 |\n| 4096 | 0.922 | 0.965 | 0.905 | 0.968 |" in new
    )


def test_only_what_was_trained_has_a_section(read: Read) -> None:
    (found,) = read(figures(device="cpu"))
    assert found.title == "training run on 2 CPU threads, float32"
    assert [name for name in NAMES if section(name, found)] == ["distillation", "machine"]
    settings = {**figures()["settings"], "bf16": True}
    (found,) = read(figures(settings=settings))
    assert found.title == "training run on 2 CPU threads, bfloat16"


def test_one_is_no_plural(read: Read) -> None:
    settings = {**figures()["settings"], "batch_size": 1}
    new = updated(PAGE, read(figures(settings=settings, threads=1, seconds=None)))
    assert "240 steps of 1 example of 1024 tokens (1 CPU thread):" in new


def test_a_resumed_run_on_a_gpu(read: Read) -> None:
    new = updated(PAGE, read(figures(device="cuda:0", seconds=None)))
    assert "240 steps of 2 examples of 1024 tokens (cuda:0):" in new


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"after": []}, "must have the same lengths"),
        ({"before": [], "after": []}, "at least one"),
        ({"threads": None}, "has no 'threads'"),
        ({"settings": {"steps": 240}}, "has no 'batch_size'"),
    ],
)
def test_damaged_files(read: Read, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(figures(**changes))
    assert "0.json" in str(error.value)
    assert message in str(error.value)
