"""Puts together what the chunks of a long list gave. R tokens of a block, C channels."""

import triton
import triton.language as tl

from .parts import LOG2E, SIZES, raised


@triton.jit
def partial_rows(
    starts, slots, lines, slots_per_head, pieces: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The tokens of a block that a program takes, and where their partial results lie.

    Returns:
        Batch row and head, positions [R], the first chunk's rows [R], and how many chunks there
        are: none where the list was not cut.
    """
    line = (tl.program_id(0) // pieces).to(tl.int64)
    group, x = line // lines, line % lines
    slot = tl.load(slots + line).to(tl.int64)
    start = tl.load(starts + group * (lines + 1) + x)
    length = tl.load(starts + group * (lines + 1) + x + 1) - start
    chunks = tl.where(slot < 0, 0, tl.cdiv(length, CHUNK))
    inner = tl.program_id(0) % pieces * ROWS + tl.arange(0, ROWS)
    rows = (group * slots_per_head + slot) * BLOCK_SIZE + inner
    return group, x * BLOCK_SIZE + inner, rows, chunks


@triton.jit(do_not_specialize=SIZES)
def merge_kernel(
    partial_out,
    partial_lse,
    starts,
    slots,
    out,
    lse,
    query_length,
    blocks_x,
    slots_per_head,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One program per ROWS queries of a block: out [G, Nq, V] and lse [G, Nq] of cut lists."""
    group, positions, rows, chunks = partial_rows(
        starts, slots, blocks_x, slots_per_head, BLOCK_SIZE // ROWS, ROWS, BLOCK_SIZE, CHUNK
    )
    channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    kept = (channels < VALUE_CHANNELS)[None, :]
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total_weight = tl.zeros([ROWS], tl.float32)
    accumulator = tl.zeros([ROWS, PADDED_VALUE_CHANNELS], tl.float32)
    for chunk in range(chunks):
        at = rows + chunk * BLOCK_SIZE
        level = tl.load(partial_lse + at) * LOG2E  # [R]
        part = tl.load(
            partial_out + at[:, None] * VALUE_CHANNELS + channels[None, :], mask=kept, other=0.0
        )  # [R, V]
        maximum, shift, decay = raised(maximum, level)  # [R]
        weight = tl.exp2(level - shift)  # [R]
        total_weight = total_weight * decay + weight
        accumulator = accumulator * decay[:, None] + part * weight[:, None]
    served = total_weight > 0
    weight = tl.where(served, total_weight, 1.0)
    accumulator /= weight[:, None]
    level = tl.where(served, maximum / LOG2E + tl.log(weight), float("-inf"))
    inside = positions < tl.where(chunks > 0, query_length, 0)
    rows = group * query_length + positions
    tl.store(lse + rows, level, mask=inside)
    tl.store(
        out + rows[:, None] * VALUE_CHANNELS + channels[None, :],
        accumulator.to(out.dtype.element_ty),
        mask=inside[:, None] & kept,
    )


@triton.jit(do_not_specialize=SIZES)
def add_kernel(
    partial,
    starts,
    slots,
    grad,
    tokens,
    lines,
    slots_per_head,
    CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One program per ROWS tokens of a block: the gradient [G, N, C] where lists were cut."""
    group, positions, rows, chunks = partial_rows(
        starts, slots, lines, slots_per_head, BLOCK_SIZE // ROWS, ROWS, BLOCK_SIZE, CHUNK
    )
    channels = tl.arange(0, PADDED_CHANNELS)
    kept = (channels < CHANNELS)[None, :]
    accumulator = tl.zeros([ROWS, PADDED_CHANNELS], tl.float32)
    for chunk in range(chunks):
        at = rows + chunk * BLOCK_SIZE
        accumulator += tl.load(
            partial + at[:, None] * CHANNELS + channels[None, :], mask=kept, other=0.0
        )  # [R, C]
    inside = positions < tl.where(chunks > 0, tokens, 0)
    rows = group * tokens + positions
    tl.store(
        grad + rows[:, None] * CHANNELS + channels[None, :],
        accumulator.to(grad.dtype.element_ty),
        mask=inside[:, None] & kept,
    )
