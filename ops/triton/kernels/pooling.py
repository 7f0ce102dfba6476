"""Means of the real tokens of blocks."""

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

    Also writes ``counts`` [B, X], the real tokens of each block; means are 0 where there are none.
    """
    program = tl.program_id(0).to(tl.int64)
    group, block = program // blocks, program % blocks
    batch, head = group // heads, group % heads
    firsts = first + batch * first_stride_b + head * first_stride_h
    seconds = second + batch * second_stride_b + head * second_stride_h if HAS_SECOND else None
    channels = tl.arange(0, PADDED_CHANNELS)
    second_channels = tl.arange(0, PADDED_SECOND_CHANNELS)

    count = 0
    first_sum = tl.zeros([PADDED_CHANNELS], tl.float32)
    second_sum = tl.zeros([PADDED_SECOND_CHANNELS], tl.float32)
    for step in tl.static_range(0, BLOCK_SIZE, TOKENS_PER_STEP):
        positions = block * BLOCK_SIZE + step + tl.arange(0, TOKENS_PER_STEP)  # [T]
        real = positions < length
        if HAS_MASK:
            real &= tl.load(mask + batch * length + positions, mask=real, other=0) != 0
        count += tl.sum(real.to(tl.int32), 0)
        rows = load_rows(firsts, positions, channels, first_stride_n, real, CHANNELS)  # [T, C]
        first_sum += tl.sum(rows.to(tl.float32), 0)
        if HAS_SECOND:
            rows = load_rows(
                seconds, positions, second_channels, second_stride_n, real, SECOND_CHANNELS
            )  # [T, C']
            second_sum += tl.sum(rows.to(tl.float32), 0)

    tl.store(counts + batch * blocks + block, count, mask=head == 0)
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
