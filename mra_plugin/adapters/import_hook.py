"""Acts once another module has been imported, without importing it.

transformers takes seconds to import, which nobody who only wants the operators should pay for.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Calls ``action`` right after module ``name`` is imported; at once if it already was."""
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Watcher(name, action))


class _Watcher(MetaPathFinder):
    """Finds nothing itself: lets the others find ``name``, and has its loader call ``action``."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name = name
        self.action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            # Who asks for a spec need not go on to import.
            sys.meta_path.insert(0, self)
        if spec is None or spec.loader is None:
            return spec
        loader = spec.loader
        execute = loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            loader.exec_module = execute  # type: ignore[method-assign]
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            execute(module)
            self.action()

        # On this one loader, not on its class: it goes with the module and is used once.
        loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec
