"""Puts another attention into a live model, and takes it out again."""

from __future__ import annotations

import copy
import json
from typing import Any

from transformers import PreTrainedConfig

from .config_attention import IMPLEMENTATIONS, build, config_params, implementation_of
from .families.class_patches import hand_out_config
from .hooks import BEFORE_PATCH
from .modules import Model, configs_in, encoders_in
from .support import check_class, check_modules


def patch(model: Model, attention: str = "mra", **params: Any) -> Model:
    """Makes a transformers encoder use another attention.

    The choice and its parameters live in the model's config (``config.mra``), so
    ``save_pretrained`` keeps them and a plain ``from_pretrained`` brings them back, as long as
    ``mra_plugin`` has been imported. Layers that are local by design (ModernBERT's sliding
    windows) stay exact and local. A second patch replaces the first. As everywhere in
    transformers, models that share one config object share its attention.

    transformers' own MRA models take the parameters that are not given from their config, and
    Nyströmformer its number of landmarks for ``"nystrom"``; its convolution stays beside any
    attention, and sees no padding.

    Args:
        model: an encoder of transformers, or a module that holds some. It is changed in place.
        attention: name of a registered backend, see `mra_plugin.registry.available_attention`.
        **params: the backend's parameters, for MRA those of `mra_plugin.ops.mra_attention`.

    Returns:
        ``model``.

    Raises:
        TypeError: ``model`` holds no transformers model, or a parameter has the wrong type or
            can't be written to config.json.
        ValueError: the model can't take another attention, the backend or a parameter is
            unknown, or a parameter has a wrong value.
    """
    encoders = encoders_in(model)
    for encoder in encoders:
        check_class(type(encoder), encoder.config)
        check_modules(encoder, encoder.config)
    for encoder in reversed(encoders):  # a part's config goes before the whole's
        hand_out_config(encoder)
    build(attention, params)  # refuses what is wrong before anything is changed
    configs = configs_in(encoders)
    for config in configs:
        if hasattr(config, "check_attention"):
            config.check_attention(attention, params)
    for name, value in params.items():
        _check_json(name, value)

    implementation = implementation_of(attention)
    for config in configs:
        if BEFORE_PATCH not in config.__dict__:
            setattr(config, BEFORE_PATCH, _state(config))
        for key in IMPLEMENTATIONS:
            config.__dict__.pop(key, None)
        setattr(config, implementation, copy.deepcopy(config_params(attention, params)))
        _set_implementation(config, implementation)
    return model


def unpatch(model: Model) -> Model:
    """Gives a model the attention back that it had before `patch`.

    A model that was loaded with ``attn_implementation="mra"`` gets transformers' default. One
    that has its own attention already is left as it is.

    Args:
        model: what was given to `patch`, or a transformers model that was loaded with "mra".

    Returns:
        ``model``.

    Raises:
        TypeError: ``model`` holds no transformers model.
    """
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
    return model


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
