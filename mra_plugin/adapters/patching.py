"""Puts another attention into a live model, and takes it out again."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from mra_plugin.ops.presets import expand_preset

from .libraries import adapters_of

Model = TypeVar("Model", bound=nn.Module)


def patch(
    model: Model, attention: str = "mra", *, preset: str | None = None, **params: Any
) -> Model:
    """Makes a transformers encoder use another attention.

    The choice and its parameters live in the model's config (``config.mra``), so
    ``save_pretrained`` keeps them and a plain ``from_pretrained`` brings them back, as long as
    ``mra_plugin`` has been imported. Layers that are local by design (ModernBERT's sliding
    windows) stay exact and local. A second patch replaces the first. As everywhere in
    transformers, models that share one config object share its attention.

    A preset's options are written out, those given over them, so that a checkpoint means the same
    when presets change. Options without a preset go with the paper's defaults. With neither it is
    the preset ``"close"``, but for models of the MRA family, transformers' own and those of this
    package: they take what is not given from their config.

    Nyströmformer takes its number of landmarks for ``"nystrom"`` from its config; its convolution
    stays beside any attention, and sees no padding.

    Args:
        model: an encoder of transformers, or a module that holds some. It is changed in place.
        attention: name of a registered backend, see `mra_plugin.registry.available_attention`.
        preset: one of `mra_plugin.ops.PRESETS`, for ``"mra"`` alone.
        **params: the backend's parameters, for MRA those of `mra_plugin.ops.mra_attention`.
            ``impl`` says how it is computed, not what, and is no option.

    Returns:
        ``model``.

    Raises:
        TypeError: ``model`` holds no transformers model, or a parameter has the wrong type or
            can't be written to config.json.
        ValueError: the model can't take another attention, the backend, the preset or a parameter
            is unknown, or a parameter has a wrong value.
    """
    if preset is not None:
        if attention != "mra":
            raise ValueError(
                f"preset={preset!r} is a set of options of attention 'mra', got "
                f"attention={attention!r}; leave preset out"
            )
        params = expand_preset({"preset": preset, **params})
    for adapter in adapters_of(model):
        adapter.patch(model, attention, params)
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
    for adapter in adapters_of(model):
        adapter.unpatch(model)
    return model
