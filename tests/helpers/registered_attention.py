"""Backends as a third party registers them: one that works, and one that breaks."""

from typing import Any

from torch import Tensor

from mra_plugin.registry import register_attention


@register_attention("values_alone", summary="averages the values")
class ValuesAlone:
    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return value.mean(2, keepdim=True).expand_as(query)


@register_attention("broken", summary="raises")
class Broken:
    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        raise RuntimeError("the cable is out\nadvice that nobody needs")
