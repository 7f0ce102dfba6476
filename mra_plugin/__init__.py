"""MRA attention for the encoders you already use.

Importing this package makes ``attn_implementation="mra"`` and the models of its families known to
transformers, where that is installed. Nothing heavy is imported until it is needed.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from .adapters import import_hook
from .adapters.transformers.families import table as layer_families
from .models import families as model_families

if TYPE_CHECKING:
    from .adapters.patching import patch, unpatch
    from .adapters.xformers import xformers_op
    from .models.mega.causal_lm import MegaForCausalLM
    from .models.mega.configuration import MegaConfig
    from .models.mega.encoder import MegaModel, MegaPreTrainedModel
    from .models.mega.heads import (
        MegaForMaskedLM,
        MegaForMultipleChoice,
        MegaForQuestionAnswering,
        MegaForSequenceClassification,
        MegaForTokenClassification,
    )
    from .models.mra.configuration import MraConfig
    from .models.mra.encoder import MraModel, MraPreTrainedModel
    from .models.mra.heads import (
        MraForMaskedLM,
        MraForMultipleChoice,
        MraForQuestionAnswering,
        MraForSequenceClassification,
        MraForTokenClassification,
    )
    from .models.nystromformer.configuration import NystromformerConfig
    from .models.nystromformer.encoder import NystromformerModel, NystromformerPreTrainedModel
    from .models.nystromformer.heads import (
        NystromformerForMaskedLM,
        NystromformerForMultipleChoice,
        NystromformerForQuestionAnswering,
        NystromformerForSequenceClassification,
        NystromformerForTokenClassification,
    )
    from .picture.drawing import plot_attention
    from .tuning.tune import tune

__all__ = [
    "MegaConfig",
    "MegaForCausalLM",
    "MegaForMaskedLM",
    "MegaForMultipleChoice",
    "MegaForQuestionAnswering",
    "MegaForSequenceClassification",
    "MegaForTokenClassification",
    "MegaModel",
    "MegaPreTrainedModel",
    "MraConfig",
    "MraForMaskedLM",
    "MraForMultipleChoice",
    "MraForQuestionAnswering",
    "MraForSequenceClassification",
    "MraForTokenClassification",
    "MraModel",
    "MraPreTrainedModel",
    "NystromformerConfig",
    "NystromformerForMaskedLM",
    "NystromformerForMultipleChoice",
    "NystromformerForQuestionAnswering",
    "NystromformerForSequenceClassification",
    "NystromformerForTokenClassification",
    "NystromformerModel",
    "NystromformerPreTrainedModel",
    "patch",
    "plot_attention",
    "tune",
    "unpatch",
    "xformers_op",
]

_MODULES = {
    "MegaConfig": "models.mega.configuration",
    "MegaForCausalLM": "models.mega.causal_lm",
    "MegaForMaskedLM": "models.mega.heads",
    "MegaForMultipleChoice": "models.mega.heads",
    "MegaForQuestionAnswering": "models.mega.heads",
    "MegaForSequenceClassification": "models.mega.heads",
    "MegaForTokenClassification": "models.mega.heads",
    "MegaModel": "models.mega.encoder",
    "MegaPreTrainedModel": "models.mega.encoder",
    "MraConfig": "models.mra.configuration",
    "MraForMaskedLM": "models.mra.heads",
    "MraForMultipleChoice": "models.mra.heads",
    "MraForQuestionAnswering": "models.mra.heads",
    "MraForSequenceClassification": "models.mra.heads",
    "MraForTokenClassification": "models.mra.heads",
    "MraModel": "models.mra.encoder",
    "MraPreTrainedModel": "models.mra.encoder",
    "NystromformerConfig": "models.nystromformer.configuration",
    "NystromformerForMaskedLM": "models.nystromformer.heads",
    "NystromformerForMultipleChoice": "models.nystromformer.heads",
    "NystromformerForQuestionAnswering": "models.nystromformer.heads",
    "NystromformerForSequenceClassification": "models.nystromformer.heads",
    "NystromformerForTokenClassification": "models.nystromformer.heads",
    "NystromformerModel": "models.nystromformer.encoder",
    "NystromformerPreTrainedModel": "models.nystromformer.encoder",
    "patch": "adapters.patching",
    "plot_attention": "picture.drawing",
    "tune": "tuning.tune",
    "unpatch": "adapters.patching",
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


def _register_in_dispatch() -> None:
    from .adapters.diffusers import dispatch

    dispatch.register()


def _serve_layers(family: layer_families.Family) -> None:
    from .adapters.transformers.families.class_patches import serve_family

    serve_family(family)


import_hook.when_imported("transformers.configuration_utils", _extend_configs)
import_hook.when_imported("transformers.modeling_utils", _register_implementations)
import_hook.when_imported(model_families.AUTO_CONFIG, model_families.register_configs)
for _module in model_families.NEEDED:
    import_hook.when_imported(_module, model_families.register_models)
import_hook.when_imported("diffusers.models.attention_dispatch", _register_in_dispatch)
for _family in layer_families.FAMILIES:
    import_hook.when_imported(_family.module, partial(_serve_layers, _family))
