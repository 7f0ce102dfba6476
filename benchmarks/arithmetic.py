"""Multiply-adds of each method, relative to those of dense exact attention.

Counted are the products of matrices and the sums that pool tokens, for N queries and keys of D
channels in one head; softmax and the choice of blocks are not. It is what a method needs:
`nystrom` as it stands here pools by a product of matrices, which costs more.
"""

from __future__ import annotations

from mra_plugin.ops import MRAOptions

# Blocks whose means say which keys are salient.
PROBES = 64


def dense(tokens: int, channels: int) -> int:
    """Exact attention: scores, and the weighted sum of values."""
    return 2 * tokens**2 * channels


def mra(tokens: int, channels: int, options: MRAOptions) -> float:
    """MRA attention, as a share of dense attention.

    In sparse mode what is coarse serves the choice alone. Salient keys are found by the scores of
    some blocks' means with every key; every query then attends to them.

    Args:
        tokens: N, a multiple of the block size.
        channels: D.
        options: with a budget of ``block_per_row``.
    """
    blocks, cells = tokens // options.block_size, tokens // options.cell_size
    averages = options.approx_mode == "full"
    pooled = (3 if averages else 2) * tokens
    coarse = (2 if averages else 1) * blocks * cells
    exact = 2 * blocks * options.block_per_row * options.block_size**2
    salient = 2 * tokens * options.salient_keys
    if options.salient_keys:
        salient += min(PROBES, blocks) * tokens
    return (pooled + coarse + exact + salient) * channels / dense(tokens, channels)


def nystrom(tokens: int, channels: int, landmarks: int, pinv_iterations: int) -> float:
    """Nyström attention, as a share of dense attention.

    Args:
        tokens: N.
        channels: D.
        landmarks: M.
        pinv_iterations: steps of the pseudo-inverse, four products of M x M matrices each.
    """
    pooled = 2 * tokens * channels
    long_products = 4 * tokens * landmarks * channels
    small_products = 2 * landmarks**2 * channels
    inverse = 4 * pinv_iterations * landmarks**3
    return (pooled + long_products + small_products + inverse) / dense(tokens, channels)
