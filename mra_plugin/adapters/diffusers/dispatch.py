"""``"mra"`` among the backends that diffusers' own dispatch knows.

For ``transformer.set_attention_backend("mra")`` and ``with attention_backend("mra"):``. There a
backend knows neither the layer nor the grid: blocks are cut from the row as it is, and text in that
row is in blocks as well. `mra_plugin.patch` does better.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

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
) -> Tensor:
    """What the dispatch calls; tensors [B, N, H, D].

    Exact but for self-attention without a mask, of which equal lengths are all that tells here.
    """
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    alike = query.shape[:3] == key.shape[:3]
    if alike and attn_mask is None and not is_causal and not dropout_p:
        return _attention(query, key, value, scale=scale).transpose(1, 2)
    if attn_mask is not None and attn_mask.ndim == 2 and attn_mask.shape[0] == query.shape[0]:
        attn_mask = attn_mask[:, None, None]
    out = scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return out.transpose(1, 2)
