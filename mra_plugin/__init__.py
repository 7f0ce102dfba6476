"""MRA attention for the encoders you already use.

Importing this package makes ``attn_implementation="mra"`` and the MRA models known to
transformers, where that is installed. Nothing heavy is imported until it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .adapters import import_hook
from .models import auto

if TYPE_CHECKING:
    from .adapters.patching import patch, unpatch
    from .adapters.xformers_op import xformers_op
    from .models.configuration import MraConfig
    from .models.encoder import MraModel, MraPreTrainedModel
    from .models.heads import (
        MraForMaskedLM,
        MraForMultipleChoice,
        MraForQuestionAnswering,
        MraForSequenceClassification,
        MraForTokenClassification,
    )
    from .report.attention_picture import plot_attention

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
    "MraConfig": "models.configuration",
    "MraForMaskedLM": "models.heads",
    "MraForMultipleChoice": "models.heads",
    "MraForQuestionAnswering": "models.heads",
    "MraForSequenceClassification": "models.heads",
    "MraForTokenClassification": "models.heads",
    "MraModel": "models.encoder",
    "MraPreTrainedModel": "models.encoder",
    "patch": "adapters.patching",
    "plot_attention": "report.attention_picture",
    "unpatch": "adapters.patching",
    "xformers_op": "adapters.xformers_op",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _extend_configs() -> None:
    from .adapters import transformers_hooks

    transformers_hooks.extend_configs()


def _register_implementations() -> None:
    from .adapters import transformers_hooks

    transformers_hooks.register_implementations()


def _serve_mra_layers() -> None:
    from .adapters import mra_layers

    mra_layers.install()


def _serve_nystromformer_layers() -> None:
    from .adapters import nystromformer_layers

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
