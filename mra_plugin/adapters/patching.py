"""Puts another attention into a live model, and takes it out again."""

from __future__ import annotations

from typing import Any, TypeVar

from mra_plugin.ops.presets import expand_preset

from .libraries import adapters_of

Model = TypeVar("Model")


def patch(
    model: Model, attention: str = "mra", *, preset: str | None = None, **params: Any
) -> Model:
    """Makes an encoder of transformers, or a diffusion transformer of diffusers, attend otherwise.

    The choice for an encoder lives in its config (``config.mra``), so ``save_pretrained`` keeps it
    and a plain ``from_pretrained`` brings it back, as long as ``mra_plugin`` has been imported.
    Layers that are local by design (ModernBERT's sliding windows) stay exact and local. As
    everywhere in transformers, models that share one config object share its attention. The choice
    for a transformer of diffusers lives in the object alone. A second patch replaces the first.

    A preset's options are written out, those given over them, so that a checkpoint means the same
    when presets change. Options without a preset go with the paper's defaults. With neither it is
    the preset ``"close"``, but for models of the MRA family, transformers' own and those of this
    package: they take what is not given from their config.

    Nyströmformer takes its number of landmarks for ``"nystrom"`` from its config; its convolution
    stays beside any attention, and sees no padding.

    Transformers of diffusers take parameters of their own as well:

    - ``token_order``: ``"tiles"`` (the default) orders latents for attention alone, so that blocks
      are neighbours in the picture or clip; text beside them is exact. None cuts blocks from the
      row as it is, text included.
    - ``grid``: sides of the grid of latent tokens, (height, width) or (frames, height, width),
      where the model's own call does not say them.
    - ``exact_layers``: how many of the first blocks stay exact, 0 by default.
    - ``exact_steps``: how many of a pipeline's first steps stay exact, 0 by default.

    Args:
        model: an encoder of transformers, a transformer of diffusers, a module that holds some, or
            a pipeline of diffusers. It is changed in place.
        attention: name of a registered backend, see `mra_plugin.registry.available_attention`.
        preset: one of `mra_plugin.ops.PRESETS`, for ``"mra"`` alone.
        **params: the backend's parameters, for MRA those of `mra_plugin.ops.mra_attention`, and
            those above. ``impl`` says how it is computed, not what, and is no option.

    Returns:
        ``model``.

    Raises:
        TypeError: ``model`` holds no model of either library, or a parameter has the wrong type or
            can't be written to config.json.
        ValueError: the model can't take another attention, the backend, the preset or a parameter
            is unknown, a parameter has a wrong value, or one is needed that the model does not say.
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
        TypeError: ``model`` holds no model of transformers or diffusers.
    """
    for adapter in adapters_of(model):
        adapter.unpatch(model)
    return model
