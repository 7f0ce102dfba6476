"""How diffusers' transformers get another attention, and their own back.

The choice is kept in an attribute of the transformer, and its layers get processors of their own.
"""

from __future__ import annotations

import inspect
from typing import Any

from diffusers import DiffusionPipeline, ModelMixin
from torch import nn

from mra_plugin.ops.checks import check_integer
from mra_plugin.ops.presets import FOR_PRETRAINED, expand_preset, names_an_option
from mra_plugin.ops.token_order import TILES, check_token_order

from ..built_attention import build
from .choice import Choice
from .layer_attention import LayerAttention
from .layouts import Layout, layout_of
from .processors import can_redirect, redirect
from .steps import Steps

# Of a pipeline, what denoises; an autoencoder and text encoders stay as they are.
_DENOISERS = ("transformer", "unet")
_STATE = "_mra_plugin_state"


def accepts(model: object) -> bool:
    """Whether it is a pipeline or a module with a transformer of diffusers."""
    return bool(_transformers_in(model))


def patch(model: Any, attention: str, params: dict[str, Any]) -> None:
    """See `mra_plugin.patch`; the choice is an attribute of each transformer.

    Args:
        model: a pipeline, a transformer, or a module that holds some.
        attention: name of a registered backend.
        params: the backend's parameters, and ``token_order``, ``grid``, ``exact_layers`` and
            ``exact_steps``.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a parameter is unknown or has a wrong value, or something is needed that the
            model does not say.
    """
    params = dict(params)
    order = params.pop("token_order", TILES)
    grid = params.pop("grid", None)
    exact_layers = params.pop("exact_layers", 0)
    exact_steps = params.pop("exact_steps", 0)
    check_token_order(order)
    for name, value in (("exact_layers", exact_layers), ("exact_steps", exact_steps)):
        check_integer(name, value, least=0)
    if grid is not None:
        if not isinstance(grid, tuple | list) or len(grid) not in (2, 3):
            raise ValueError(
                f"grid must be (height, width) or (frames, height, width), got {grid!r}"
            )
        for side in grid:
            check_integer("grid", side, least=1)
        grid = tuple(grid)
    if attention == "mra" and not names_an_option(params):
        params = {**expand_preset({"preset": FOR_PRETRAINED}), **params}
    transformers = _transformers_in(model)
    layouts = [_layout(one, grid) if order is not None else None for one in transformers]
    built = build(attention, params)
    served = [(one, _layers(one, exact_layers)) for one in transformers]
    for transformer, layers in served:
        if not layers:
            raise ValueError(
                f"{type(transformer).__name__} has no layer that takes another attention"
                + (f" behind its first {exact_layers} blocks" if exact_layers else "")
            )
    steps = Steps(model, exact_steps) if exact_steps else None
    unpatch(model)
    if steps is not None:
        steps.start()
    for (transformer, layers), layout in zip(served, layouts, strict=True):
        choice = Choice(built, layout, grid, steps)
        transformer.__dict__[_STATE] = _State(transformer, layers, choice)


def unpatch(model: Any) -> None:
    """See `mra_plugin.unpatch`."""
    for transformer in _transformers_in(model):
        state: _State | None = transformer.__dict__.pop(_STATE, None)
        if state is not None:
            state.withdraw()


def _layout(transformer: nn.Module, grid: tuple[int, ...] | None) -> Layout:
    """Where a transformer's tokens stand; with a grid that is given, all of them stand in it."""
    known = layout_of(type(transformer))
    if known is None and grid is not None:
        return Layout("none")
    if known is None:
        raise ValueError(
            f"which tokens of {type(transformer).__name__} are the picture's is not known; if all "
            "in its self-attention are, give their sides as grid=(height, width) or (frames, "
            "height, width), or give token_order=None for blocks of the row as it is"
        )
    return known


class _State:
    """What a transformer was changed by, to be taken back."""

    def __init__(self, transformer: nn.Module, layers: list[nn.Module], choice: Choice) -> None:
        """Puts redirected processors into layers."""
        self.choice = choice
        self.names = tuple(inspect.signature(transformer.forward).parameters)
        self.processors: list[tuple[Any, Any, Any]] = []
        for layer in layers:
            own = layer.processor
            redirected = redirect(own, LayerAttention(choice))
            layer.processor = redirected
            self.processors.append((layer, own, redirected))
        self.hook = transformer.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, transformer: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Tells the choice of a call of the transformer, before it runs.

        Raises:
            RuntimeError: processors were replaced meanwhile.
        """
        for layer, _, redirected in self.processors:
            if layer.processor is not redirected:
                raise RuntimeError(
                    f"the processor of a {type(layer).__name__} was replaced by "
                    f"{type(layer.processor).__name__} after patch; patch again"
                )
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        self.choice.note_call(transformer, given)

    def withdraw(self) -> None:
        """Gives the layers their own processors back, but for those that were replaced since."""
        for layer, own, redirected in self.processors:
            if layer.processor is redirected:
                layer.processor = own
        self.hook.remove()
        if self.choice.steps is not None:
            self.choice.steps.stop()


def _transformers_in(model: object) -> list[Any]:
    """The models in a pipeline or module that have blocks with attention, outermost first."""
    parts = [model]
    if isinstance(model, DiffusionPipeline):
        parts = [part for name, part in model.components.items() if name.startswith(_DENOISERS)]
    modules = (one for part in parts if isinstance(part, nn.Module) for one in part.modules())
    return [one for one in modules if isinstance(one, ModelMixin) and _blocks(one)]


def _layers(transformer: nn.Module, exact: int) -> list[nn.Module]:
    """The attention layers behind the first ``exact`` blocks."""
    return [layer for block in _blocks(transformer)[exact:] for layer in block]


def _blocks(transformer: nn.Module) -> list[list[nn.Module]]:
    """The attention layers of each block of a transformer.

    Blocks are in lists of its own; what lies deeper (refiners of the text) has other tokens.
    """
    lists = [part for part in transformer.children() if isinstance(part, nn.ModuleList)]
    blocks = [[one for one in block.modules() if _attends(one)] for part in lists for block in part]
    return [layers for layers in blocks if layers]


def _attends(module: nn.Module) -> bool:
    """Whether a module's processor attends by what can be taken over."""
    return can_redirect(getattr(module, "processor", None))
