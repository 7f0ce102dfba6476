"""What the code of a model class names: functions, variables, attributes, keywords.

transformers says of few things whether a class does them; its code says of all.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import CodeType

# Base classes that serve every model and say nothing of one.
_NO_MODELS = ("torch.", "transformers.modeling_utils", "transformers.generation.")


def names_in(module_class: type) -> frozenset[str]:
    """All names in the methods of a class, and of the classes that it derives from."""
    return _found(module_class)


@functools.cache
def _found(module_class: type) -> frozenset[str]:
    found: set[str] = set()
    for parent in module_class.__mro__:
        if parent is not object and not f"{parent.__module__}.".startswith(_NO_MODELS):
            for member in vars(parent).values():
                found.update(_names(member))
    return frozenset(found)


def attends(module_class: type) -> bool:
    """Whether a layer asks transformers for the attention function that it calls."""
    return "ALL_ATTENTION_FUNCTIONS" in names_in(module_class)


def _names(member: object) -> Iterator[str]:
    if isinstance(member, classmethod | staticmethod):
        member = member.__func__
    if inspect.isfunction(member):
        yield from _names_in_code(inspect.unwrap(member).__code__)


def _names_in_code(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_varnames
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in_code(constant)
        elif isinstance(constant, str):
            yield constant  # the key of a dict of arguments, among others
        elif isinstance(constant, tuple):  # the keywords of a call
            yield from (one for one in constant if isinstance(one, str))
