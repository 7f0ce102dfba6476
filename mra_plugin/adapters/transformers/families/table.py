"""The families of transformers whose layers compute attention themselves, a row each.

All that this package knows of such a family stands in its row and, where it is code, in the
family's own file, which is imported with transformers' module and not before. A new family is a
file and a row.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layers:
    """What the layers of a family do; stands as ``LAYERS`` in the family's file.

    Attributes:
        forward: what a layer runs where its config asks for one of our implementations; the
            layer goes first.
        project: takes a layer and hidden states [B, N, hidden] and returns query, key and value,
            [B, H, N, D] each, for who wants to look at them.
        change_more: takes transformers' module and changes what else has to be.
    """

    forward: Callable[..., Any]
    project: Callable[[Any, Tensor], tuple[Tensor, Tensor, Tensor]]
    change_more: Callable[[Any], None] | None = None


@dataclass(frozen=True)
class Family:
    """What there is to know of a family before it is imported.

    Attributes:
        title: what messages call it.
        model_type: of its configs.
        module: of transformers, with the classes.
        base_class: name of what all models of the family derive from.
        model_class: name of the model without a head.
        layer_class: name of the layer that attends; built from the model's config alone.
        file: of this folder, with its `Layers`.
        twin: module of this package with a layer class of the same name, which projects and
            scales as that of transformers does.
        has_fields: whether its configs have the options of MRA attention in fields of their own.
        approximates: whether its own attention approximates, so that it is exact only with
            another one in its place.
        scale: factor on the scores, from the channels of a head; None means 1/√D.
    """

    title: str
    model_type: str
    module: str
    base_class: str
    model_class: str
    layer_class: str
    file: str
    twin: str | None = None
    has_fields: bool = False
    approximates: bool = False
    scale: Callable[[int], float] | None = None

    def layers(self) -> Layers:
        """What its layers do; imports transformers."""
        file = importlib.import_module(f".{self.file}", __package__)
        layers: Layers = file.LAYERS
        return layers

    def has_model(self, model_class: type) -> bool:
        """Whether a class of transformers is a model of this family."""
        return _derives(model_class, self.module, self.base_class)

    def has_layer(self, layer_class: type) -> bool:
        """Whether a class is the attention layer of this family, here or in transformers."""
        return any(
            _derives(layer_class, module, self.layer_class)
            for module in (self.module, self.twin)
            if module is not None
        )


def mra_scale(head_size: int) -> float:
    """Factor on MRA's scores: the original fills heads up to 32 channels, and scales for those."""
    scale: float = max(head_size, 32) ** -0.5
    return scale


FAMILIES = (
    Family(
        title="MRA",
        model_type="mra",
        module="transformers.models.mra.modeling_mra",
        base_class="MraPreTrainedModel",
        model_class="MraModel",
        layer_class="MraSelfAttention",
        file="mra",
        twin="mra_plugin.models.mra.attention",
        has_fields=True,
        approximates=True,
        scale=mra_scale,
    ),
    Family(
        title="Nyströmformer",
        model_type="nystromformer",
        module="transformers.models.nystromformer.modeling_nystromformer",
        base_class="NystromformerPreTrainedModel",
        model_class="NystromformerModel",
        layer_class="NystromformerSelfAttention",
        file="nystromformer",
        twin="mra_plugin.models.nystromformer.attention",
        approximates=True,
    ),
)


def family_of_layer(layer_class: type) -> Family | None:
    """The family whose attention layer a class is, or None."""
    return next((family for family in FAMILIES if family.has_layer(layer_class)), None)


def _derives(child: type, module: str, name: str) -> bool:
    return any(one.__module__ == module and one.__name__ == name for one in child.__mro__)
