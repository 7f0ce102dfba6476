"""Means of the tokens of blocks, and of cells, that count. T tokens per step, C channels."""

import triton
import triton.language as tl

from .parts import SIZES, load_rows


@triton.jit(do_not_specialize=SIZES)
def pool_kernel(
    first,
    second,
    mask,
    first_means,
    second_means,
    counts,
    heads,
    heads_sharing,
    length,
    blocks,
    first_stride_b,
    first_stride_h,
    first_stride_n,
    second_stride_b,
    second_stride_h,
    second_stride_n,
    CHANNELS: tl.constexpr,
    SECOND_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_SECOND_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TOKENS_PER_STEP: tl.constexpr,
    HAS_SECOND: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """One program per block of a head: means [G, X, C] of one or two tensors under one mask.

    Also writes ``counts`` [G / heads_sharing, X], the tokens of each block that count; means are 0
    where there are none. ``mask`` is [G / heads_sharing, length].
    """
    program = tl.program_id(0).to(tl.int64)
    group, block = program // blocks, program % blocks
    batch, head = group // heads, group % heads
    firsts = first + batch * first_stride_b + head * first_stride_h
    seconds = second + batch * second_stride_b + head * second_stride_h if HAS_SECOND else None
    own = group // heads_sharing
    channels = tl.arange(0, PADDED_CHANNELS)
    second_channels = tl.arange(0, PADDED_SECOND_CHANNELS)

    count = 0
    first_sum = tl.zeros([PADDED_CHANNELS], tl.float32)
    second_sum = tl.zeros([PADDED_SECOND_CHANNELS], tl.float32)
    for step in tl.static_range(0, BLOCK_SIZE, TOKENS_PER_STEP):
        positions = block * BLOCK_SIZE + step + tl.arange(0, TOKENS_PER_STEP)  # [T]
        real = positions < length
        if HAS_MASK:
            real &= tl.load(mask + own * length + positions, mask=real, other=0) != 0
        count += tl.sum(real.to(tl.int32), 0)
        rows = load_rows(firsts, positions, channels, first_stride_n, real, CHANNELS)  # [T, C]
        first_sum += tl.sum(rows.to(tl.float32), 0)
        if HAS_SECOND:
            rows = load_rows(
                seconds, positions, second_channels, second_stride_n, real, SECOND_CHANNELS
            )  # [T, C']
            second_sum += tl.sum(rows.to(tl.float32), 0)

    tl.store(counts + own * blocks + block, count, mask=group % heads_sharing == 0)
    share = tl.maximum(count, 1).to(tl.float32)
    kept = channels < CHANNELS
    tl.store(first_means + program * CHANNELS + channels, first_sum / share, mask=kept)
    if HAS_SECOND:
        kept = second_channels < SECOND_CHANNELS
        tl.store(
            second_means + program * SECOND_CHANNELS + second_channels,
            second_sum / share,
            mask=kept,
        )


@triton.jit
def store_cell_means(
    tokens,
    means,
    positions,
    real,
    cell,
    blocks,
    share,
    stride,
    CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
):
    """Means [blocks, C] of a head's cells [Z], of the ``real`` ones [T] of their tokens."""
    channels = tl.arange(0, PADDED_CHANNELS)
    rows = load_rows(tokens, positions, channels, stride, real, CHANNELS)  # [T, C]
    sums = tl.sum(tl.reshape(rows.to(tl.float32), [CELLS, BLOCK_SIZE, PADDED_CHANNELS]), 1)
    tl.store(
        means + cell[:, None] * CHANNELS + channels[None, :],
        sums / share[:, None],  # [Z, C]
        mask=(cell < blocks)[:, None] & (channels < CHANNELS)[None, :],
    )


@triton.jit(do_not_specialize=SIZES)
def pool_cells_kernel(
    first,
    second,
    mask,
    first_means,
    second_means,
    counts,
    heads,
    heads_sharing,
    length,
    blocks,
    first_stride_b,
    first_stride_h,
    first_stride_n,
    second_stride_b,
    second_stride_h,
    second_stride_n,
    CHANNELS: tl.constexpr,
    SECOND_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_SECOND_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TOKENS_PER_STEP: tl.constexpr,
    HAS_SECOND: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """The same for small blocks: one program per TOKENS_PER_STEP tokens of a head, Z cells."""
    cells: tl.constexpr = TOKENS_PER_STEP // BLOCK_SIZE
    steps = tl.cdiv(length, TOKENS_PER_STEP)
    program = tl.program_id(0).to(tl.int64)
    group, step = program // steps, program % steps
    batch, head, own = group // heads, group % heads, group // heads_sharing
    positions = step * TOKENS_PER_STEP + tl.arange(0, TOKENS_PER_STEP)  # [T]
    cell = step * cells + tl.arange(0, cells)  # [Z]
    real = positions < length
    if HAS_MASK:
        real &= tl.load(mask + own * length + positions, mask=real, other=0) != 0
    count = tl.sum(tl.reshape(real.to(tl.int32), [cells, BLOCK_SIZE]), 1)  # [Z]
    # One of the heads with the same counts writes them.
    written = cell < tl.where(group % heads_sharing == 0, blocks, 0)
    tl.store(counts + own * blocks + cell, count, mask=written)
    share = tl.maximum(count, 1).to(tl.float32)  # [Z]

    store_cell_means(
        first + batch * first_stride_b + head * first_stride_h,
        first_means + group * blocks * CHANNELS,
        positions, real, cell, blocks, share, first_stride_n,
        CHANNELS, PADDED_CHANNELS, cells, BLOCK_SIZE,
    )  # fmt: skip
    if HAS_SECOND:
        store_cell_means(
            second + batch * second_stride_b + head * second_stride_h,
            second_means + group * blocks * SECOND_CHANNELS,
            positions, real, cell, blocks, share, second_stride_n,
            SECOND_CHANNELS, PADDED_SECOND_CHANNELS, cells, BLOCK_SIZE,
        )  # fmt: skip
