"""MRA attention for the encoders you already use.

Importing this package makes ``attn_implementation="mra"`` known to transformers, where that is
installed. Nothing heavy is imported until it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .adapters import import_hook

if TYPE_CHECKING:
    from .adapters.patching import patch, unpatch

__all__ = ["patch", "unpatch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from .adapters import patching

        return getattr(patching, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _extend_configs() -> None:
    from .adapters import transformers_hooks

    transformers_hooks.extend_configs()


def _register_implementations() -> None:
    from .adapters import transformers_hooks

    transformers_hooks.register_implementations()


import_hook.when_imported("transformers.configuration_utils", _extend_configs)
import_hook.when_imported("transformers.modeling_utils", _register_implementations)
