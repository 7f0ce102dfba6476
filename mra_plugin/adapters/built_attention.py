"""An attention of the registry, built for use inside of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from mra_plugin.registry import build_attention, get_attention

if TYPE_CHECKING:
    from mra_plugin.registry import Attention


@dataclass(frozen=True, eq=False)
class BuiltAttention:
    """An attention of the registry, and what its backend says of it.

    Attributes:
        name: the backend's.
        attend: the attention.
        serves: what it can do beyond the plain call, see `mra_plugin.registry.SERVICES`.
    """

    name: str
    attend: Attention
    serves: frozenset[str]


def build(name: str, params: dict[str, Any]) -> BuiltAttention:
    """Builds a backend of the registry for use inside a model.

    Raises:
        TypeError: a parameter has the wrong type.
        ValueError: a parameter is unknown or has a wrong value, or the backend has weights, which a
            model could neither train nor save.
    """
    attention = build_attention(name, **params)
    if isinstance(attention, nn.Module) and attention.state_dict():
        raise ValueError(
            f"attention {name!r} has weights of its own ({', '.join(attention.state_dict())}); "
            "only attention without weights can be put into a model"
        )
    return BuiltAttention(name, attention, get_attention(name).serves)
