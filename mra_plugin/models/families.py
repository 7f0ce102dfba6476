"""Makes transformers' Auto classes answer model type "mra" with the classes of this package."""

from __future__ import annotations

import sys

_AUTO = "transformers.models.auto.modeling_auto"
# The models, what they need of transformers, and the Auto classes, each with a name that it has
# once it is loaded. All these import one another, in ways that differ between versions, and any may
# come first, so registration waits until none is halfway.
NEEDED = {
    _AUTO: "AutoModelForMultipleChoice",
    "transformers.modeling_layers": "GradientCheckpointingLayer",
    "mra_plugin.models.mra.encoder": "MraModel",
    "mra_plugin.models.mra.heads": "MraForQuestionAnswering",
}


def register_config() -> None:
    """Registers the config; to be called when transformers' ``configuration_auto`` is loaded."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from .mra.configuration import MraConfig

    AutoConfig.register("mra", MraConfig, exist_ok=True)


def register_models() -> None:
    """Registers the models, once transformers' Auto classes are loaded.

    To be called after the import of each of the modules in `NEEDED`.
    """
    halfway = any(
        module in sys.modules and not hasattr(sys.modules[module], name)
        for module, name in NEEDED.items()
    )
    if halfway or _AUTO not in sys.modules:
        return
    from transformers.models.auto import modeling_auto as auto

    from .mra import encoder, heads
    from .mra.configuration import MraConfig

    for auto_class, model_class in (
        (auto.AutoModel, encoder.MraModel),
        (auto.AutoModelForPreTraining, heads.MraForMaskedLM),
        (auto.AutoModelForMaskedLM, heads.MraForMaskedLM),
        (auto.AutoModelForSequenceClassification, heads.MraForSequenceClassification),
        (auto.AutoModelForMultipleChoice, heads.MraForMultipleChoice),
        (auto.AutoModelForTokenClassification, heads.MraForTokenClassification),
        (auto.AutoModelForQuestionAnswering, heads.MraForQuestionAnswering),
    ):
        auto_class.register(MraConfig, model_class, exist_ok=True)
