"""The special tokens that a tokenizer puts around any text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Frame:
    """The special tokens of a model.

    Attributes:
        before: ids in front of any text.
        after: ids behind it.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def size(self) -> int:
        """Special tokens of a text."""
        return len(self.before) + len(self.after)


def frame_of(tokenizer: Any) -> Frame:
    """The special tokens that a tokenizer puts around a text."""
    ids = tokenizer("a", return_special_tokens_mask=True)
    marks = ids["special_tokens_mask"]
    # Without a token that stands for "a", all special tokens go in front.
    start = marks.index(0) if 0 in marks else len(marks)
    special = [token for token, mark in zip(ids["input_ids"], marks, strict=True) if mark]
    return Frame(tuple(special[:start]), tuple(special[start:]))
