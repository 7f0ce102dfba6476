"""The model families of this package, a row each, and how transformers comes to know them.

A new family is a folder and a row.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelFamily:
    """What there is to know of a family before it is imported.

    Attributes:
        model_type: what its config.json says.
        config_class: the class of its configs, as ``module:class``; modules are named from this
            folder.
        models: the class that each of transformers' Auto classes gives, likewise, by the Auto
            class's name.
    """

    model_type: str
    config_class: str
    models: Mapping[str, str]


FAMILIES = (
    ModelFamily(
        model_type="mra",
        config_class="mra.configuration:MraConfig",
        models={
            "AutoModel": "mra.encoder:MraModel",
            "AutoModelForPreTraining": "mra.heads:MraForMaskedLM",
            "AutoModelForMaskedLM": "mra.heads:MraForMaskedLM",
            "AutoModelForSequenceClassification": "mra.heads:MraForSequenceClassification",
            "AutoModelForMultipleChoice": "mra.heads:MraForMultipleChoice",
            "AutoModelForTokenClassification": "mra.heads:MraForTokenClassification",
            "AutoModelForQuestionAnswering": "mra.heads:MraForQuestionAnswering",
        },
    ),
    ModelFamily(
        model_type="nystromformer",
        config_class="nystromformer.configuration:NystromformerConfig",
        models={
            "AutoModel": "nystromformer.encoder:NystromformerModel",
            "AutoModelForTextEncoding": "nystromformer.encoder:NystromformerModel",
            "AutoModelForMaskedLM": "nystromformer.heads:NystromformerForMaskedLM",
            "AutoModelForSequenceClassification": (
                "nystromformer.heads:NystromformerForSequenceClassification"
            ),
            "AutoModelForMultipleChoice": "nystromformer.heads:NystromformerForMultipleChoice",
            "AutoModelForTokenClassification": (
                "nystromformer.heads:NystromformerForTokenClassification"
            ),
            "AutoModelForQuestionAnswering": (
                "nystromformer.heads:NystromformerForQuestionAnswering"
            ),
        },
    ),
    ModelFamily(
        model_type="mega",
        config_class="mega.configuration:MegaConfig",
        models={
            "AutoModel": "mega.encoder:MegaModel",
            "AutoModelForPreTraining": "mega.heads:MegaForMaskedLM",
            "AutoModelForMaskedLM": "mega.heads:MegaForMaskedLM",
            "AutoModelForCausalLM": "mega.causal_lm:MegaForCausalLM",
            "AutoModelForSequenceClassification": "mega.heads:MegaForSequenceClassification",
            "AutoModelForMultipleChoice": "mega.heads:MegaForMultipleChoice",
            "AutoModelForTokenClassification": "mega.heads:MegaForTokenClassification",
            "AutoModelForQuestionAnswering": "mega.heads:MegaForQuestionAnswering",
        },
    ),
)

AUTO_CONFIG = "transformers.models.auto.configuration_auto"
_AUTO_MODELS = "transformers.models.auto.modeling_auto"


def _needed() -> dict[str, set[str]]:
    needed = {
        _AUTO_MODELS: {name for family in FAMILIES for name in family.models},
        "transformers.modeling_layers": {"GradientCheckpointingLayer"},
    }
    for family in FAMILIES:
        for place in family.models.values():
            module, name = _place(place)
            needed.setdefault(module, set()).add(name)
    return needed


def model_class(model_type: str, name: str) -> Any | None:
    """The class that a checkpoint names: of this package where it has the family.

    Args:
        model_type: as its config says.
        name: of the class, as ``architectures`` in its config has it.

    Returns:
        A class of this package, of transformers for a family that this package has not, or None
        if there is no such class.
    """
    for family in FAMILIES:
        if family.model_type == model_type:
            places = (place for place in family.models.values() if _place(place)[1] == name)
            place = next(places, None)
            return None if place is None else _load(place)
    return getattr(importlib.import_module("transformers"), name, None)


def register_configs() -> None:
    """Registers the configs; to be called when transformers' `AUTO_CONFIG` is loaded."""
    from transformers.models.auto.configuration_auto import AutoConfig

    for family in FAMILIES:
        AutoConfig.register(family.model_type, _load(family.config_class), exist_ok=True)


def register_models() -> None:
    """Registers the models, once transformers' Auto classes are loaded.

    To be called after the import of each of the modules in `NEEDED`.
    """
    halfway = any(
        module in sys.modules and not all(hasattr(sys.modules[module], name) for name in names)
        for module, names in NEEDED.items()
    )
    if halfway or _AUTO_MODELS not in sys.modules:
        return
    auto = sys.modules[_AUTO_MODELS]
    for family in FAMILIES:
        config_class = _load(family.config_class)
        for auto_class, place in family.models.items():
            getattr(auto, auto_class).register(config_class, _load(place), exist_ok=True)


def _place(place: str) -> tuple[str, str]:
    """Full name of the module, and name of the class."""
    module, _, name = place.partition(":")
    return f"{__package__}.{module}", name


def _load(place: str) -> Any:
    module, name = _place(place)
    return getattr(importlib.import_module(module), name)


NEEDED = _needed()
"""The models, what they need of transformers, and the Auto classes, each with names that it has
once it is loaded. All these import one another, in ways that differ between versions, and any may
come first, so registration waits until none is halfway."""
