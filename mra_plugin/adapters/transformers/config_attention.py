"""Which attention a transformers config asks for, and the callable that serves it.

Two attention implementations are registered with transformers, and each keeps its parameters in
the config attribute of its own name:

- ``"mra"``: ``config.mra`` holds the parameters of MRA attention. Without it, it is the preset for
  pretrained models, written out there when a model is built; models of the MRA family have theirs
  in fields of the config.
- ``"efficient_attention"``: ``config.efficient_attention`` holds ``"name"``, any backend of the
  registry, and its parameters.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from mra_plugin.ops.presets import (
    FOR_PRETRAINED,
    expand_preset,
    names_an_option,
    preset_options,
)
from mra_plugin.ops.token_order import check_token_order
from mra_plugin.registry import AttentionBackend, get_attention

from ..built_attention import BuiltAttention, build
from .families.table import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from mra_plugin.registry import AttentionWithWeights

MRA = "mra"
REGISTRY = "efficient_attention"
IMPLEMENTATIONS = (MRA, REGISTRY)

# Beside an attention's own parameters: how tokens of pictures are ordered for it, see `pictures`.
TOKEN_ORDER = "token_order"


# What was built, as attributes that are named by backend and parameters: attention calls with the
# same share it. torch.compile can't trace how it is built, and reads a dict as it was when tracing
# began, but an attribute as it is.
_BUILT = SimpleNamespace()

_FOR_PRETRAINED = preset_options(FOR_PRETRAINED)
_WITH_FIELDS = tuple(family.model_type for family in FAMILIES if family.has_fields)

# How often each backend was defined, as far as was seen here, as attributes for the same reason:
# what was compiled with one definition is compiled again with the next.
_DEFINITIONS = SimpleNamespace()
_LATEST: dict[str, AttentionBackend] = {}


def implementation_of(name: str) -> str:
    """The transformers implementation that serves the backend ``name``."""
    return MRA if name == MRA else REGISTRY


def config_params(name: str, params: dict[str, Any]) -> dict[str, Any]:
    """What a config stores under `implementation_of(name)`."""
    return dict(params) if name == MRA else {"name": name, **params}


def has_fields(config: PreTrainedConfig) -> bool:
    """Whether a model has the options of MRA attention in fields of its config."""
    return config.model_type in _WITH_FIELDS


def written_out(config: PreTrainedConfig, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters that ``config.mra`` is to hold, so that they mean the same from then on.

    Args:
        config: config of a model.
        params: of MRA attention, as far as they are given; ``"preset"`` may be among them.

    Raises:
        ValueError: there is no such preset.
    """
    given = expand_preset(params)
    if has_fields(config) or names_an_option(params):
        return given
    return {**_FOR_PRETRAINED, **given}


def settled_params(config: PreTrainedConfig) -> Any:
    """What ``config.mra`` is to hold that holds what it holds; not checked.

    An empty dict is what version 0.1 wrote for the paper's defaults, and stays that.

    Returns:
        Parameters without a preset's name, or None for a model of the MRA family that has none.

    Raises:
        ValueError: there is no such preset as it names.
    """
    stored = getattr(config, MRA, None)
    if stored is None and not has_fields(config):
        return dict(_FOR_PRETRAINED)
    return expand_preset(stored) if isinstance(stored, dict) else stored


def stored_params(config: PreTrainedConfig, implementation: str) -> Any:
    """The parameters of an implementation in a config, as they are; not checked."""
    stored = getattr(config, implementation, None)
    if stored is not None:
        return stored
    return {} if implementation != MRA or has_fields(config) else _FOR_PRETRAINED


def token_order_of(config: Any) -> Any:
    """The order of tokens that a config asks for, None for the row as it is; not checked."""
    stored = getattr(config, str(getattr(config, "_attn_implementation", None)), None)
    return stored.get(TOKEN_ORDER) if isinstance(stored, dict) else None


def without_token_order(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the attention alone.

    Raises:
        ValueError: there is no such order of tokens.
    """
    check_token_order(params.get(TOKEN_ORDER))
    return {name: value for name, value in params.items() if name != TOKEN_ORDER}


def attention_for(config: PreTrainedConfig, implementation: str | None = None) -> BuiltAttention:
    """The attention that ``config`` asks for.

    Args:
        config: config of a model or of a part of it.
        implementation: one of `IMPLEMENTATIONS`; by default the config's own.

    Raises:
        TypeError: the parameters in the config are no dict, or one has the wrong type.
        ValueError: a parameter is unknown or has a wrong value.
    """
    if implementation is None:
        implementation = config._attn_implementation
    stored = stored_params(config, implementation)
    if not isinstance(stored, dict):
        raise TypeError(f"config.{implementation} must be a dict of parameters, got {stored!r}")
    stored = without_token_order(stored)
    if implementation == MRA:
        name, params = MRA, stored
    elif isinstance(stored.get("name"), str):
        name = stored["name"]
        params = {option: value for option, value in stored.items() if option != "name"}
    else:
        raise ValueError(
            f'config.{implementation} must hold the "name" of a registered attention, '
            f"got {stored!r}"
        )
    return attention_with(name, params)


def attention_with(name: str, params: dict[str, Any]) -> BuiltAttention:
    """The attention ``name`` with these parameters, built once; errors are those of `build`."""
    _note_definition(name)
    # Traced, so that a compiled model is compiled again when its parameters or the backend change.
    label = f"{name} {getattr(_DEFINITIONS, name)} {_label(params)}"
    _ensure_built(label, name, params)
    attention: BuiltAttention = getattr(_BUILT, label)
    return attention


def dense_weights(
    attention: BuiltAttention,
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    scale: float | None,
) -> Tensor:
    """The dense matrix [B, H, Nq, Nk] that an attention stands for.

    Raises:
        ValueError: the attention does not give it.
    """
    if "weights" not in attention.serves:
        raise ValueError(
            f"output_attentions=True needs the attention matrices, which "
            f"{type(attention.attend).__name__} does not give"
        )
    return cast("AttentionWithWeights", attention.attend).weights(
        query, key, key_padding_mask, query_padding_mask, scale=scale
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _note_definition(name: str) -> None:
    """Counts the definitions of a backend, as when a notebook's cell runs again."""
    backend = get_attention(name)
    if _LATEST.get(name) is not backend:
        _LATEST[name] = backend
        setattr(_DEFINITIONS, name, getattr(_DEFINITIONS, name, 0) + 1)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _ensure_built(label: str, name: str, params: dict[str, Any]) -> None:
    if not hasattr(_BUILT, label):
        setattr(_BUILT, label, build(name, params))


def _label(value: Any) -> str:
    """Tells JSON values apart; the types keep 8, 8.0 and True apart."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_label(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join([_label(one) for one in value]) + "]"
    return repr(value)
