"""Multiply-adds of each method, relative to those of dense exact attention.

Counted are the products of matrices and the sums that pool tokens, for N queries and keys of D
channels in one head; softmax and the choice of blocks are not. It is what a method needs:
`nystrom` as it stands here pools by a product of matrices, which costs more.
"""

from __future__ import annotations


def dense(tokens: int, channels: int) -> int:
    """Exact attention: scores, and the weighted sum of values."""
    return 2 * tokens**2 * channels


def mra(
    tokens: int, channels: int, block_size: int, block_per_row: int, *, averages: bool
) -> float:
    """MRA attention, as a share of dense attention.

    Args:
        tokens: N.
        channels: D.
        block_size: tokens per block.
        block_per_row: exact blocks per row.
        averages: with the coarse part in the output (MRA-2), or only for the choice (MRA-2-s).
    """
    blocks = tokens // block_size
    pooled = 3 if averages else 2
    coarse = (2 if averages else 1) * blocks**2 * channels
    exact = blocks * block_per_row * block_size**2 * 2 * channels
    return (pooled * tokens * channels + coarse + exact) / dense(tokens, channels)


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
