"""For families whose layers compute attention themselves, not through transformers' interface.

What changes is their classes, once, when transformers imports them: a layer whose config asks for
one of our implementations runs our forward, any other runs its own. The choice lives in the config
alone, as in every other family, so copies, pickles, checkpoints and compiled models carry nothing
new.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..config_attention import IMPLEMENTATIONS
from ..excess_length import tell_of_excess_length
from .table import FAMILIES, Family, family_of_layer


def serve_family(family: Family) -> None:
    """Lets a family's models take our implementations.

    To be called right after transformers' module of the family is imported.
    """
    module = importlib.import_module(family.module)
    layers = family.layers()
    base_class: Any = getattr(module, family.base_class)
    layer_class: Any = getattr(module, family.layer_class)
    # transformers lets models change their attention if their source calls its interface.
    base_class._can_set_attn_implementation = classmethod(lambda cls: True)
    build = layer_class.__init__

    @functools.wraps(build)
    def build_and_keep_config(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        build(self, config, *args, **kwargs)
        self.config = config

    layer_class.__init__ = build_and_keep_config
    replace_forward(layer_class, layers.forward, asks_for_ours)
    tell_of_excess_length(getattr(module, family.model_class))
    if layers.change_more is not None:
        layers.change_more(module)


def replace_forward(
    module_class: Any, forward: Callable[..., Any], when: Callable[[Any], bool]
) -> None:
    """Has modules of a class run ``forward`` when ``when(module)``, and otherwise their own."""
    own = module_class.forward

    @functools.wraps(own)
    def choose(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (forward if when(self) else own)(self, *args, **kwargs)

    module_class.forward = choose


def asks_for_ours(module: Any) -> bool:
    """Whether the config of a model or layer asks for one of our implementations."""
    config = getattr(module, "config", None)
    return config is not None and config._attn_implementation in IMPLEMENTATIONS


def serves(model_class: type) -> bool:
    """Whether a model class belongs to one of these families."""
    return any(family.has_model(model_class) for family in FAMILIES)


def hand_out_config(model: Any) -> None:
    """Gives its config to the layers of a model that was built before they kept it."""
    for module in model.modules():
        if not hasattr(module, "config") and family_of_layer(type(module)) is not None:
            module.config = model.config


def project(layer: Any, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of a layer, [B, H, N, D] each."""

    def in_heads(projection: nn.Module) -> Tensor:
        heads: Tensor = projection(hidden_states).unflatten(-1, (-1, layer.attention_head_size))
        return heads.transpose(1, 2)

    return in_heads(layer.query), in_heads(layer.key), in_heads(layer.value)
