"""How models of transformers get another attention, and their own back.

The choice and its parameters are kept in the models' configs.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from ..built_attention import build
from .config_attention import (
    IMPLEMENTATIONS,
    MRA,
    TOKEN_ORDER,
    config_params,
    implementation_of,
    without_token_order,
    written_out,
)
from .excess_length import tell_of_excess_length
from .families.class_patches import hand_out_config
from .hooks import BEFORE_PATCH
from .modules import configs_in, encoders_in
from .pictures import check_pictures, note_pictures
from .support import check_class, check_modules, uses_interface


def accepts(model: object) -> bool:
    """Whether it is a transformers model, or a module that holds one."""
    return isinstance(model, nn.Module) and bool(encoders_in(model))


def patch(model: nn.Module, attention: str, params: dict[str, Any]) -> None:
    """See `mra_plugin.patch`; the choice is kept in the configs."""
    encoders = encoders_in(model)
    for encoder in encoders:
        check_class(type(encoder), encoder.config)
        check_modules(encoder)
    if not any(uses_interface(encoder) for encoder in encoders):
        raise ValueError(f"{type(model).__name__} has no layer that takes another attention")
    for encoder in reversed(encoders):  # a part's config goes before the whole's
        hand_out_config(encoder)
        tell_of_excess_length(type(encoder))
        note_pictures(type(encoder))
    configs = [
        (config, written_out(config, params) if attention == MRA else params)
        for config in configs_in(encoders)
    ]
    for config, given in configs:  # refuses what is wrong before anything is changed
        of_attention = without_token_order(given)
        build(attention, of_attention)
        if hasattr(config, "check_attention"):
            config.check_attention(attention, of_attention)
    if params.get(TOKEN_ORDER) is not None:
        check_pictures(model)
    for name, value in params.items():
        _check_json(name, value)

    implementation = implementation_of(attention)
    for config, given in configs:
        if BEFORE_PATCH not in config.__dict__:
            setattr(config, BEFORE_PATCH, _state(config))
        for key in IMPLEMENTATIONS:
            config.__dict__.pop(key, None)
        setattr(config, implementation, copy.deepcopy(config_params(attention, given)))
        _set_implementation(config, implementation)


def unpatch(model: nn.Module) -> None:
    """See `mra_plugin.unpatch`."""
    encoders = encoders_in(model)
    default = {id(one.config): one for one in reversed(encoders)}
    for config in configs_in(encoders):
        before = config.__dict__.pop(BEFORE_PATCH, None)
        if before is None and config._attn_implementation not in IMPLEMENTATIONS:
            continue
        for key in IMPLEMENTATIONS:
            config.__dict__.pop(key, None)
        implementation = None
        if before is not None:
            implementation = before["implementation"]
            config.__dict__.update(before["params"])
        if implementation is None:
            owner = default.get(id(config), encoders[0])
            implementation = owner.get_correct_attn_implementation(None)
        _set_implementation(config, implementation)


def _state(config: PreTrainedConfig) -> dict[str, Any]:
    """What `unpatch` restores; a model loaded with one of ours goes back to the default."""
    if config._attn_implementation in IMPLEMENTATIONS:
        return {"implementation": None, "params": {}}
    params = {key: config.__dict__[key] for key in IMPLEMENTATIONS if key in config.__dict__}
    return {"implementation": config._attn_implementation, "params": copy.deepcopy(params)}


def _set_implementation(config: PreTrainedConfig, implementation: str | None) -> None:
    # As a dict, transformers takes it for this config alone and leaves those inside as they are.
    config._attn_implementation = {"": implementation}


def _check_json(name: str, value: Any) -> None:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} can't be written to config.json: {value!r} ({type(value).__name__})"
        ) from None
