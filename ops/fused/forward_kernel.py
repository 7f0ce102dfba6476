"""Attention of query blocks over the key blocks they chose, started from the coarse scale.

Shapes: b tokens per block, R queries of a program, N keys per step, D and V channels of keys and
values, padded to powers of two. Rows of one head lie ``capacity`` list entries apart.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_rows(base, positions, channels, stride, keep, CHANNELS: tl.constexpr):
    """Rows ``positions`` of a [tokens, CHANNELS] matrix, 0 where not ``keep``: [n, padded]."""
    pointers = base + positions[:, None].to(tl.int64) * stride + channels[None, :]
    return tl.load(pointers, mask=keep[:, None] & (channels[None, :] < CHANNELS), other=0.0)


@triton.jit
def listed_tokens(entries, total, step, size: tl.constexpr, width: tl.constexpr):
    """Positions of tokens ``step`` to ``step + width`` of the blocks in a list, and which exist."""
    token = step + tl.arange(0, width)
    listed = token < total
    block = tl.load(entries + token // size, mask=listed, other=0)
    return block * size + token % size, listed


@triton.jit
def listed_block(
    order,
    starts,
    entries,
    lines,
    capacity,
    heads,
    pieces: tl.constexpr,
    size: tl.constexpr,
    ordered: tl.constexpr,
):
    """The block whose ROWS tokens this program takes, and its list.

    Returns:
        The block's index among all, that of its batch row and head, the block's own in it, batch
        row, head, its list, and how many tokens that holds.
    """
    index = (tl.program_id(0) // pieces).to(tl.int64)
    if ordered:
        index = tl.load(order + index)
    group, line = index // lines, index % lines
    batch, head = group // heads, group % heads
    first = tl.load(starts + group * (lines + 1) + line)
    total = (tl.load(starts + group * (lines + 1) + line + 1) - first) * size
    listed = entries + group * capacity + first
    return index, group, line, batch, head, listed, total


@triton.jit
def forward_kernel(
    query,
    key,
    value,
    key_mask,
    query_mask,
    coarse_out,
    coarse_lse,
    order,
    starts,
    columns,
    out,
    lse,
    scale,
    heads,
    query_length,
    key_length,
    blocks_x,
    capacity,
    query_stride_b,
    query_stride_h,
    query_stride_n,
    key_stride_b,
    key_stride_h,
    key_stride_n,
    value_stride_b,
    value_stride_h,
    value_stride_n,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS_PER_STEP: tl.constexpr,
    IS_ORDERED: tl.constexpr,
    HAS_COARSE: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
    HAS_QUERY_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS queries of a block, the blocks with the longest lists first.

    Writes out [G, Nq, V] and lse [G, Nq]. ``order`` [G·X], if any, says which block a program
    takes; ``starts`` [G, X + 1] and ``columns`` [G, capacity] list the key blocks that each chose.
    """
    pieces: tl.constexpr = BLOCK_SIZE // ROWS
    row, group, x, batch, head, entries, total = listed_block(
        order, starts, columns, blocks_x, capacity, heads, pieces, BLOCK_SIZE, IS_ORDERED
    )
    keys = key + batch * key_stride_b + head * key_stride_h
    values = value + batch * value_stride_b + head * value_stride_h

    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    positions = x * BLOCK_SIZE + tl.program_id(0) % pieces * ROWS + tl.arange(0, ROWS)  # [R]
    inside = positions < query_length
    queries = query + batch * query_stride_b + head * query_stride_h
    q = load_rows(queries, positions, channels, query_stride_n, inside, CHANNELS)  # [R, D]

    # The maximum, sum and accumulator of the coarse scale, the same for all queries of the block.
    if HAS_COARSE:
        level = tl.load(coarse_lse + row) * LOG2E
        maximum = tl.full([ROWS], 0.0, tl.float32) + level  # [R]
        total_weight = tl.where(maximum > float("-inf"), 1.0, 0.0)  # [R]
        coarse = tl.load(
            coarse_out + row * VALUE_CHANNELS + value_channels,
            mask=value_channels < VALUE_CHANNELS,
            other=0.0,
        )  # [V]
        accumulator = tl.zeros([ROWS, PADDED_VALUE_CHANNELS], tl.float32) + coarse[None, :]
    else:
        maximum = tl.full([ROWS], float("-inf"), tl.float32)
        total_weight = tl.zeros([ROWS], tl.float32)
        accumulator = tl.zeros([ROWS, PADDED_VALUE_CHANNELS], tl.float32)

    for step in range(0, total, KEYS_PER_STEP):
        at, keep = listed_tokens(entries, total, step, BLOCK_SIZE, KEYS_PER_STEP)
        keep &= at < key_length
        if HAS_KEY_MASK:
            real = tl.load(key_mask + batch * key_length + at, mask=keep, other=0)
            keep &= real != 0
        k = load_rows(keys, at, channels, key_stride_n, keep, CHANNELS)  # [N, D]
        v = load_rows(values, at, value_channels, value_stride_n, keep, VALUE_CHANNELS)  # [N, V]
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)  # [R, N]
        scores = tl.where(keep[None, :], scores, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, 1))
        shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        decay = tl.exp2(maximum - shift)  # [R]
        weights = tl.exp2(scores - shift[:, None])  # [R, N]
        total_weight = total_weight * decay + tl.sum(weights, 1)
        accumulator = accumulator * decay[:, None]
        accumulator += tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)  # [R, V]
        maximum = new_maximum

    served = total_weight > 0
    if HAS_QUERY_MASK:
        real = tl.load(query_mask + batch * query_length + positions, mask=inside, other=0)
        served &= real != 0
    weight = tl.where(served, total_weight, 1.0)
    accumulator = tl.where(served[:, None], accumulator / weight[:, None], 0.0)
    level = tl.where(served, maximum / LOG2E + tl.log(weight), float("-inf"))

    rows = group * query_length + positions
    tl.store(lse + rows, level, mask=inside)
    tl.store(
        out + rows[:, None] * VALUE_CHANNELS + value_channels[None, :],
        accumulator.to(out.dtype.element_ty),
        mask=inside[:, None] & (value_channels[None, :] < VALUE_CHANNELS),
    )
