"""Which transformers models can take another attention, and why others can't."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import nn

from .families.class_patches import serves
from .families.table import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SUPPORTED = (
    "ALBERT, BERT, CamemBERT, data2vec-text, DistilBERT, ELECTRA, ERNIE, ESM, EuroBERT, "
    "ModernBERT, RoBERTa, RoBERTa-PreLayerNorm, ViT, XLM-RoBERTa and other encoders that use "
    f"transformers' attention interface, and {' and '.join(one.title for one in FAMILIES)}"
)


def check_class(model_class: Any, config: PreTrainedConfig) -> None:
    """Refuses a model for what its class and config say, before it is built.

    Args:
        model_class: a subclass of ``PreTrainedModel``.
        config: its config.

    Raises:
        ValueError: it can't take another attention; says why.
    """
    if getattr(config, "is_encoder_decoder", False):
        _refuse(model_class, "it is an encoder-decoder, and its decoder is causal")
    if getattr(config, "is_decoder", False):
        _refuse(model_class, "it is a decoder (config.is_decoder), and so causal")
    if not _heeds_the_choice(model_class):
        _refuse(model_class, "it does not use transformers' attention interface")


def check_modules(model: nn.Module, config: PreTrainedConfig) -> None:
    """Refuses a live model for what its layers say.

    Raises:
        ValueError: it is causal.
    """
    # transformers lets the config overrule the layers, to use a causal model as an encoder.
    if getattr(config, "is_causal", None) is False:
        return
    for module in model.modules():
        if getattr(module, "is_causal", None) is True:
            _refuse(type(model), f"it is causal ({type(module).__name__}.is_causal)")


def _heeds_the_choice(model_class: Any) -> bool:
    # Some pick a layer class by the implementation's name from a table of their own.
    if any(
        name.endswith("_ATTENTION_CLASSES") for name in vars(sys.modules[model_class.__module__])
    ):
        return False
    if model_class._supports_attention_backend or serves(model_class):
        return True
    # Not every class that uses the interface says so. transformers' own look at its source finds
    # it, but also passes models that have no attention layer at all.
    return bool(model_class._supports_sdpa and model_class._can_set_attn_implementation())


def _refuse(model_class: type, reason: str) -> None:
    raise ValueError(
        f"{model_class.__name__} can't take another attention: {reason}. Supported are {SUPPORTED}."
    )
