"""MRA attention for the encoders you already use.

Importing this package makes ``attn_implementation="mra"`` and the MRA models known to
transformers, where that is installed. Nothing heavy is imported until it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .adapters import import_hook
from .models import families as auto

if TYPE_CHECKING:
    from .adapters.transformers.patching import patch, unpatch
    from .adapters.xformers import xformers_op
    from .models.mra.configuration import MraConfig
    from .models.mra.encoder import MraModel, MraPreTrainedModel
    from .models.mra.heads import (
        MraForMaskedLM,
        MraForMultipleChoice,
        MraForQuestionAnswering,
        MraForSequenceClassification,
        MraForTokenClassification,
    )
    from .picture.drawing import plot_attention

__all__ = [
    "MraConfig",
    "MraForMaskedLM",
    "MraForMultipleChoice",
    "MraForQuestionAnswering",
    "MraForSequenceClassification",
    "MraForTokenClassification",
    "MraModel",
    "MraPreTrainedModel",
    "patch",
    "plot_attention",
    "unpatch",
    "xformers_op",
]

_MODULES = {
    "MraConfig": "models.mra.configuration",
    "MraForMaskedLM": "models.mra.heads",
    "MraForMultipleChoice": "models.mra.heads",
    "MraForQuestionAnswering": "models.mra.heads",
    "MraForSequenceClassification": "models.mra.heads",
    "MraForTokenClassification": "models.mra.heads",
    "MraModel": "models.mra.encoder",
    "MraPreTrainedModel": "models.mra.encoder",
    "patch": "adapters.transformers.patching",
    "plot_attention": "picture.drawing",
    "unpatch": "adapters.transformers.patching",
    "xformers_op": "adapters.xformers",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _extend_configs() -> None:
    from .adapters.transformers import hooks as transformers_hooks

    transformers_hooks.extend_configs()


def _register_implementations() -> None:
    from .adapters.transformers import hooks as transformers_hooks

    transformers_hooks.register_implementations()


def _serve_mra_layers() -> None:
    from .adapters.transformers.families import mra as mra_layers

    mra_layers.install()


def _serve_nystromformer_layers() -> None:
    from .adapters.transformers.families import nystromformer as nystromformer_layers

    nystromformer_layers.install()


import_hook.when_imported("transformers.configuration_utils", _extend_configs)
import_hook.when_imported("transformers.modeling_utils", _register_implementations)
import_hook.when_imported("transformers.models.auto.configuration_auto", auto.register_config)
for _module in auto.NEEDED:
    import_hook.when_imported(_module, auto.register_models)
import_hook.when_imported("transformers.models.mra.modeling_mra", _serve_mra_layers)
import_hook.when_imported(
    "transformers.models.nystromformer.modeling_nystromformer", _serve_nystromformer_layers
)
