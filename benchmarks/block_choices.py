"""Attention with block pairs that something else than MRA chose: a window, and an oracle's.

One sequence without padding, cut into whole blocks.
Shapes: H heads, N tokens, b tokens per block, X = N / b blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from oracle import HeadOracle
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.plan import plan_blocks


def window_attention(
    query: Tensor, key: Tensor, value: Tensor, *, block_size: int, block_per_row: int, scale: float
) -> Tensor:
    """Exact attention within a band of blocks, and nothing outside.

    Args:
        query: [1, H, N, D].
        key: [1, H, N, D].
        value: [1, H, N, Dv].
        block_size: b.
        block_per_row: blocks that each row has, at most X.
        scale: factor of the scores.

    Returns:
        [1, H, N, Dv].
    """
    band = band_of_blocks(query.shape[2] // block_size, block_per_row).to(query.device)
    mask = spread(band, block_size)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def oracle_attention(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float, **options: Any
) -> Tensor:
    """MRA-2 attention with block pairs that `HeadOracle` chose.

    Cells and salient keys are those of MRA attention, and so is the number of pairs; where they
    are, in which rows too, is for the oracle to choose.

    Args:
        query: [1, H, N, D].
        key: [1, H, N, D].
        value: [1, H, N, Dv].
        scale: factor of the scores.
        **options: of MRA attention.

    Returns:
        [1, H, N, Dv].
    """
    chosen = MRAOptions(**options)
    size, budget = chosen.block_size, chosen.block_per_row * (query.shape[2] // chosen.block_size)
    salient = plan_blocks(query, key, None, None, chosen, scale).salient  # [1, H, g]
    out = torch.empty_like(value)
    for head in range(query.shape[1]):
        oracle = HeadOracle(
            *(x[0, head] for x in (query, key, value)),
            block_size=size,
            scale=scale,
            cell_size=chosen.cell_size,
            salient=salient[0, head],
        )
        out[0, head] = oracle.attend(oracle.choose(budget))
    return out


def band_of_blocks(blocks: int, per_row: int) -> Tensor:
    """A band around the diagonal, moved inside at both ends, so that each row has as many blocks.

    Args:
        blocks: X.
        per_row: blocks in each row, at most X.

    Returns:
        bool [X, X].
    """
    starts = (torch.arange(blocks) - per_row // 2).clamp(0, blocks - per_row)[:, None]
    columns = torch.arange(blocks)
    return (columns >= starts) & (columns < starts + per_row)


def spread(chosen: Tensor, block_size: int) -> Tensor:
    """From pairs of blocks, [X, X], to pairs of tokens, [N, N]."""
    return chosen.repeat_interleave(block_size, 0).repeat_interleave(block_size, 1)
