"""Which transformers models can take another attention, and why others can't.

What a class and its config say is known before anything is built; what the layers say, before any
weights are loaded. Nothing here knows a model by its name: modules are asked what they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from .class_names import attends, names_in
from .families.class_patches import serves
from .families.table import FAMILIES, family_of_layer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SUPPORTED = (
    "ALBERT, BERT, CamemBERT, data2vec-text, DistilBERT, ELECTRA, ERNIE, ESM, EuroBERT, "
    "LayoutLM, ModernBERT, RoBERTa, RoBERTa-PreLayerNorm, ViT, XLM-RoBERTa and other encoders that "
    f"use transformers' attention interface, and {' and '.join(one.title for one in FAMILIES)}"
)

# Functions of transformers that models call for their masks.
_CAUSAL_MASKS = frozenset(
    {
        "create_causal_mask",
        "create_chunked_causal_mask",
        "create_masks_for_generate",
        "create_sliding_window_causal_mask",
    }
)
_BIDIRECTIONAL_MASKS = frozenset(
    {"create_bidirectional_mask", "create_bidirectional_sliding_window_mask"}
)


# The last is what encoders call the mask that they broadcast themselves; a decoder's is causal, but
# its config says that it is one.
_PADDING_MASKS = _BIDIRECTIONAL_MASKS | {"extended_attention_mask"}
# What models add to transformers' masks, and functions of their own.
_ADDED_TO_MASKS = frozenset({"and_mask_function", "or_mask_function"})
_OVER_PAIRS = ("block_attention_mask", "build_attention_mask", "_expand_mask")


def check_class(model_class: Any, config: PreTrainedConfig) -> None:
    """Refuses a model for what its class and config say, before it is built.

    Args:
        model_class: a subclass of ``PreTrainedModel``.
        config: its config.

    Raises:
        ValueError: it can't take another attention; says why.
    """
    if getattr(config, "is_decoder", False):
        _refuse(model_class, "it is a decoder (config.is_decoder), and so causal")
    if not _heeds_the_choice(model_class):
        _refuse(model_class, "it does not use transformers' attention interface")


def check_modules(model: nn.Module, modules: Iterable[nn.Module] | None = None) -> None:
    """Refuses a model for what its modules say; parameters may be on the device "meta".

    Args:
        model: a transformers model.
        modules: those that shall take another attention; by default all of it.

    Raises:
        ValueError: it can't take another attention; says why.
    """
    chosen = list(model.modules() if modules is None else modules)
    if (reason := _why_causal(model, chosen)) is not None:
        _refuse(type(model), reason + _way_out(model))
    if (reason := _why_unserved(model, chosen)) is not None:
        _refuse(type(model), reason)


def uses_interface(model: nn.Module) -> bool:
    """Whether a layer of ``model`` attends by transformers' interface, or is of our families."""
    return any(
        attends(type(module)) or family_of_layer(type(module)) is not None
        for module in model.modules()
    )


def _why_causal(model: nn.Module, modules: list[nn.Module]) -> str | None:
    """Which of the modules is causal, or None."""
    of_model: Any = getattr(model, "config", None)
    for module in modules:
        name = type(module).__name__
        if _is_bidirectional(getattr(module, "config", of_model)):
            continue
        if attends(type(module)) and getattr(module, "is_causal", None) is True:
            return f"it is causal, as {name}.is_causal says"
        if _masks_are_causal(module):
            return f"it is causal, as the mask says that {name} makes"
    return None


def _why_unserved(model: nn.Module, modules: list[nn.Module]) -> str | None:
    """What the modules need of attention that it has not, or None."""
    layers = [module for module in modules if attends(type(module))]
    for layer in layers:
        name = type(layer).__name__
        if not hasattr(layer, "is_causal") and not _says_bidirectional(layer, model):
            return f"neither {name} nor a mask of its model says that it is not causal (is_causal)"
        for argument, (has_it, what) in _MORE_THAN_PRODUCTS.items():
            if argument in names_in(type(layer)) and has_it(layer):
                return f"{name} adds {what} to its scores ({argument})"
    for module in modules if layers else ():
        name = type(module).__name__
        for part in (*module._modules, *module._parameters):
            if part.startswith("relative_") and _has(module, part):
                return f"{name} adds relative positions to its scores ({part})"
        if function := _unplain_mask(module):
            return f"{name} makes a mask that is not plain padding ({function})"
    return None


def _way_out(model: nn.Module) -> str:
    """What can be done with a causal model, if it is one that has an encoder as well."""
    config: Any = model.config
    if not getattr(config, "is_encoder_decoder", False):
        return ""
    encoder: Any = getattr(model, "get_encoder", lambda: None)()
    if not isinstance(encoder, nn.Module) or encoder is model:
        return " and the decoder of an encoder-decoder; an encoder alone may take another attention"
    rest = list(encoder.modules())
    if _why_causal(encoder, rest) is None and _why_unserved(encoder, rest) is None:
        return ", in the decoder of an encoder-decoder; patch(model.get_encoder()) is possible"
    return ", in the decoder of an encoder-decoder"


def _is_bidirectional(config: Any) -> bool:
    """Whether a config makes a causal model an encoder; transformers' own masks heed it."""
    return getattr(config, "is_causal", None) is False


def _masks_are_causal(module: nn.Module) -> bool:
    names = names_in(type(module))
    if not names & _CAUSAL_MASKS:
        return False
    if names & _BIDIRECTIONAL_MASKS and "is_decoder" in names:
        return False  # the config decides, and said that it is none
    config = getattr(module, "config", None)
    turned = getattr(config, "use_bidirectional_attention", None) is True
    return not (turned and "use_bidirectional_attention" in names)


def _says_bidirectional(layer: nn.Module, model: nn.Module) -> bool:
    """Whether a layer without ``is_causal`` is bidirectional all the same."""
    return "is_causal" in names_in(type(layer)) or any(
        names_in(type(module)) & _PADDING_MASKS for module in model.modules()
    )


# What a layer hands to the attention function that changes the result: whether this one does, and
# what it is called.
_MORE_THAN_PRODUCTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "position_bias": (
        # Where there is a choice of positions, some layers hand on None.
        lambda layer: "relative" in str(getattr(layer, "position_embeddings_type", "relative")),
        "relative positions",
    ),
    "s_aux": (lambda layer: _has(layer, "sinks"), "attention sinks"),
    "softcap": (lambda layer: _has(layer, "attn_logit_softcapping"), "a cap"),
}


def _has(module: nn.Module, name: str) -> bool:
    return getattr(module, name, None) is not None


def _unplain_mask(module: nn.Module) -> str | None:
    """What a module lays a mask over pairs of tokens with, if it does."""
    names = names_in(type(module))
    # Sequences are packed only on demand, and refused where they are.
    served = _CAUSAL_MASKS | {"packed_sequence_mask_function"}
    if not names & served and (added := names & _ADDED_TO_MASKS):
        return min(added)
    return next((name for name in names if name.endswith(_OVER_PAIRS)), None)


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
