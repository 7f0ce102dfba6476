"""The libraries whose models can take another attention, a row each.

A new library is a module that answers `Adapter`, and a row.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import Any, Protocol, cast


class Adapter(Protocol):
    """What a library's module has to answer.

    Where a model keeps which attention it has is the library's business: its config, an attribute.
    """

    def accepts(self, model: object) -> bool:
        """Whether it is, or holds, a model of the library."""
        ...

    def patch(self, model: Any, attention: str, params: dict[str, Any]) -> None:
        """Gives the library's models another attention, or changes nothing.

        Args:
            model: what it accepts; changed in place.
            attention: name of a registered backend.
            params: the backend's parameters, and those of the library's models.

        Raises:
            TypeError: a parameter has the wrong type, or can't be kept.
            ValueError: a model can't take another attention, the backend or a parameter is
                unknown, or a parameter has a wrong value.
        """
        ...

    def unpatch(self, model: Any) -> None:
        """Gives the library's models the attention back that they had before."""
        ...


@dataclass(frozen=True)
class Library:
    """What there is to know of a library before it is imported.

    Attributes:
        package: import name of the library.
        model: what messages call a model of it.
        adapter: module of this folder that answers `Adapter`.
    """

    package: str
    model: str
    adapter: str


LIBRARIES = (
    Library(
        package="transformers",
        model="a transformers PreTrainedModel",
        adapter="transformers.patching",
    ),
    Library(
        package="diffusers",
        model="a diffusers pipeline or transformer",
        adapter="diffusers.patching",
    ),
)


def adapters_of(model: object) -> list[Adapter]:
    """The adapters of all libraries that have a model in ``model``, at least one.

    Raises:
        TypeError: ``model`` holds no model of a known library.
    """
    # A library that nobody imported has made no model.
    loaded = [library for library in LIBRARIES if library.package in sys.modules]
    adapters = [cast(Adapter, _module(library.adapter)) for library in loaded]
    found = [adapter for adapter in adapters if adapter.accepts(model)]
    if not found:
        models = " or ".join(library.model for library in LIBRARIES)
        raise TypeError(f"model must be, or hold, {models}; {type(model).__name__} does not")
    return found


def _module(name: str) -> object:
    return importlib.import_module(f".{name}", __package__)
