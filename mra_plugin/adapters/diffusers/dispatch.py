"""``"mra"`` among the backends that diffusers' own dispatch knows.

For ``transformer.set_attention_backend("mra")`` and ``with attention_backend("mra"):``. There a
backend knows neither the layer nor the grid: blocks are cut from the row as it is, and text in that
row is in blocks as well. `mra_plugin.patch` does better.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from mra_plugin.backends.mra import MRAAttention
from mra_plugin.ops.presets import FOR_PRETRAINED

NAME = "mra"
MODULE = "diffusers.models.attention_dispatch"


def register() -> None:
    """Adds the name and its function to diffusers' dispatch, which has been imported."""
    dispatch: Any = sys.modules[MODULE]
    names = dispatch.AttentionBackendName
    name: Any = str.__new__(names, NAME)
    # Its list of names is closed, and all that it offers looks them up there.
    name._name_, name._value_ = NAME.upper(), NAME
    names._member_map_[name._name_] = name
    names._member_names_.append(name._name_)
    names._value2member_map_[NAME] = name
    dispatch._AttentionBackendRegistry.register(name)(_attend)


_attention = MRAAttention(preset=FOR_PRETRAINED)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    _parallel_config: Any = None,
) -> Tensor:
    """What the dispatch calls; tensors [B, N, H, D].

    Self-attention without a mask, of which equal shapes are all that tells here. All else goes to
    diffusers' own backend for PyTorch's attention, as it came.
    """
    plain = attn_mask is None and not is_causal and not dropout_p
    if plain and not return_lse and _parallel_config is None and query.shape[:3] == key.shape[:3]:
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return _attention(query, key, value, scale=scale).transpose(1, 2)
    dispatch: Any = sys.modules[MODULE]
    native = dispatch._AttentionBackendRegistry._backends[dispatch.AttentionBackendName.NATIVE]
    out: Tensor = native(
        query,
        key,
        value,
        attn_mask=attn_mask,
        dropout_p=dropout_p,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=enable_gqa,
        return_lse=return_lse,
        _parallel_config=_parallel_config,
    )
    return out
