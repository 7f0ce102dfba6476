"""Values out of JSON, each checked as it is taken."""

import json
import math
from collections.abc import Mapping
from typing import Any

from mra_plugin.errors import UserError

# What lies beyond is no measurement, and has no place on an axis.
SMALLEST, LARGEST, LARGEST_COUNT = 1e-30, 1e30, 2**53
LONGEST_LABEL = 100


class Fields:
    """A JSON object whose values are taken by name and type.

    Args:
        values: the object.
        where: names it in errors, for example "results.json: benchmark 'forward[512]'".
    """

    def __init__(self, values: object, where: str):
        if not isinstance(values, Mapping):
            raise UserError(f"{where} must be an object, got {short(values)}")
        self.values = values
        self.where = where

    def text(self, name: str, among: tuple[str, ...] = ()) -> str:
        """The string called ``name``, one of ``among`` if that is given."""
        value = self._present(name)
        if not isinstance(value, str) or not value or (among and value not in among):
            raise self._wrong(name, f"one of {', '.join(among)}" if among else "text")
        return value

    def label(self, name: str) -> str:
        """The string called ``name`` by which plots name something: short, in one line."""
        value = self.text(name)
        if len(value) > LONGEST_LABEL or not value.isprintable() or not value.strip():
            raise self._wrong(name, f"a line of at most {LONGEST_LABEL} characters")
        return value

    def count(self, name: str) -> int:
        """The positive whole number called ``name``."""
        value = self._present(name)
        if not _is_size(value):
            raise self._wrong(name, "a positive whole number")
        return int(value)

    def count_or_zero(self, name: str) -> int:
        """The whole number called ``name``, not below zero."""
        return 0 if self.values.get(name) == 0 else self.count(name)

    def number(self, name: str) -> float:
        """The positive number called ``name``."""
        value = self._present(name)
        if not _is_number(value) or not 0 < value < math.inf:
            raise self._wrong(name, "a positive number")
        if not SMALLEST <= value <= LARGEST:
            raise self._wrong(name, f"from {SMALLEST:g} to {LARGEST:g}")
        return float(value)

    def number_if_any(self, name: str, least: float = -LARGEST) -> float | None:
        """The number called ``name``; None where it is null, missing or not finite."""
        value = self.values.get(name)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None
        if not _is_number(value):
            raise self._wrong(name, "a number or null")
        if not least <= value <= LARGEST:
            raise self._wrong(name, f"from {least:g} to {LARGEST:g}")
        return float(value) if abs(value) >= SMALLEST else 0.0

    def text_if_any(self, name: str) -> str | None:
        """The string called ``name``; None where it is null, missing or empty."""
        return None if self.values.get(name) in (None, "") else self.text(name)

    def count_if_any(self, name: str) -> int | None:
        """The positive whole number called ``name``; None where it is null or missing."""
        return None if self.values.get(name) is None else self.count(name)

    def inner(self, name: str) -> "Fields":
        """The object called ``name``; an empty one where it is null or missing."""
        return Fields(self.values.get(name) or {}, f"{self.where}: {name!r}")

    def shape(self, name: str) -> tuple[int, ...]:
        """The list of positive whole numbers called ``name``."""
        value = self._present(name)
        if not isinstance(value, list) or not value or not all(map(_is_size, value)):
            raise self._wrong(name, "a list of positive whole numbers")
        return tuple(value)

    def texts(self, name: str) -> list[str]:
        """The list of strings called ``name``; an empty one where it is missing."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._wrong(name, "a list of texts")
        return value

    def objects(self, name: str) -> "list[Fields]":
        """The list of objects called ``name``; an empty one where it is missing."""
        value = self.values.get(name) or []
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return [Fields(one, f"{self.where}: {name}[{at}]") for at, one in enumerate(value)]

    def _present(self, name: str) -> Any:
        if self.values.get(name) is None:
            raise UserError(f"{self.where} has no {name!r}")
        return self.values[name]

    def _wrong(self, name: str, right: str) -> UserError:
        value = short(self.values[name])
        return UserError(f"{self.where}: {name!r} must be {right}, got {value}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_COUNT


def halves_of_characters(values: object) -> bool:
    """Whether JSON spelled half of a character, as of an emoji that was cut in two."""
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def short(value: object) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
