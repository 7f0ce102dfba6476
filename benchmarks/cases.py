"""What is measured, case by case, and what could not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["attention", "layer", "closeness", "retrieval", "busy", "stages", "picture"]
Direction = Literal["forward", "training"]


@dataclass(frozen=True)
class Case:
    """One benchmark: a method at a length.

    Attributes:
        kind: attention alone, a whole encoder layer, how close a method is, how well it ranks,
            attention on a busy machine, the parts of a call, or what it does to pictures.
        method: label of the method, the same in every kind.
        direction: a forward pass, or one with gradients.
        tokens: length of the sequence.
    """

    kind: Kind
    method: str
    direction: Direction
    tokens: int

    @property
    def id(self) -> str:
        """Readable, and without spaces, so that ``-k`` can pick it."""
        return f"{self.tokens}-{self.direction}-{self.method.replace(' ', '-')}"

    @property
    def group(self) -> str:
        """What pytest-benchmark shows side by side."""
        direction = f", {self.direction}" if self.kind in ("attention", "layer", "busy") else ""
        return f"{self.kind}{direction}, {self.tokens} tokens"


class CannotRunError(Exception):
    """A case can't run here; the message says why."""


@dataclass(frozen=True)
class NotRun:
    """A case that could not run, and why."""

    case: Case
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The entry of ``not_run`` in the result file."""
        return {
            "kind": self.case.kind,
            "method": self.case.method,
            "direction": self.case.direction,
            "tokens": self.case.tokens,
            "reason": self.reason,
        }


def first_sentence(error: BaseException) -> str:
    """What an error of some library says first, without its advice and stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
