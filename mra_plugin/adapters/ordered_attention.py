"""Attention of tokens that stand in a grid, beside some that do not.

Blocks are cut from the row, so for attention alone the grid's tokens go into an order in which
neighbours in the row are neighbours in the grid, and back afterwards. Tokens outside of the grid
(text in front or behind, class and register tokens) have no such neighbours, and matter to all:
they see and are seen exactly, where the attention can do that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from mra_plugin.ops import exact
from mra_plugin.ops.checks import check_scale
from mra_plugin.ops.token_order import tile_order

from .built_attention import BuiltAttention

if TYPE_CHECKING:
    from mra_plugin.registry import AttentionWithExactKeys


@dataclass(frozen=True, eq=False)
class Arrangement:
    """An order for a grid's tokens.

    Attributes:
        order: int64 [tokens], the token at each place of the row.
        back: int64 [tokens], the place of each token in that row.
    """

    order: Tensor
    back: Tensor


def in_tiles(coordinates: Tensor) -> Arrangement:
    """The arrangement in tiles of tokens at ``coordinates`` [tokens, axes]."""
    order = tile_order(coordinates)
    return Arrangement(order, order.argsort())


def attend_arranged(
    attention: BuiltAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    padding: Tensor | None,
    arrangement: Arrangement,
    before: int,
    scale: float | None,
) -> Tensor:
    """Self-attention of a grid's tokens and those beside it.

    Args:
        attention: a built attention.
        query: [B, H, N, D].
        key: [B, H, N, D].
        value: [B, H, N, Dv].
        padding: bool [B, N], True at a real token, or None.
        arrangement: of the grid's tokens.
        before: how many tokens stand before the grid; all others that are no part of it stand
            behind.
        scale: factor on the logits; None means 1/√D.

    Returns:
        [B, H, N, Dv], each token where it stood.
    """
    tokens = arrangement.order.shape[0]
    end = before + tokens

    def inside(x: Tensor) -> Tensor:
        return x[:, :, before:end].index_select(2, arrangement.order)

    def outside(x: Tensor) -> Tensor:
        return torch.cat([x[:, :, :before], x[:, :, end:]], 2)

    # As the keys are cut: [B, 1, N].
    keys = None if padding is None else padding[:, None]
    inner = None if keys is None else inside(keys)[:, 0]
    if tokens == query.shape[2]:
        out = attention.attend(inside(query), inside(key), inside(value), inner, None, scale=scale)
        return out.index_select(2, arrangement.back)

    outer = None if keys is None else outside(keys)[:, 0]
    if "exact_keys" in attention.serves:
        out = cast("AttentionWithExactKeys", attention.attend).with_exact_keys(
            inside(query),
            inside(key),
            inside(value),
            outside(key),
            outside(value),
            inner,
            outer,
            scale=scale,
        )
        factor = check_scale(scale, query.shape[-1])
        others = exact.attend(outside(query), key, value, padding, None, factor)
    else:
        query, key, value = (torch.cat([outside(x), inside(x)], 2) for x in (query, key, value))
        real = None if inner is None or outer is None else torch.cat([outer, inner], 1)
        whole = attention.attend(query, key, value, real, None, scale=scale)
        others, out = whole.split([query.shape[2] - tokens, tokens], 2)
    out = out.index_select(2, arrangement.back)
    return torch.cat([others[:, :, :before], out, others[:, :, before:]], 2)
