"""Attention of query blocks over the key blocks they chose and salient keys in no such block.

It starts from the coarse scale.

Shapes: b tokens per block, R queries of a program, N keys per step, D and V channels of keys and
values, padded to powers of two.
"""

import triton
import triton.language as tl

from .parts import LOG2E, SIZES, listed_work, load_rows, raised, seen_tokens


@triton.jit(do_not_specialize=[*SIZES, "blocks_y"])
def forward_kernel(
    query,
    key,
    value,
    key_mask,
    query_mask,
    coarse_out,
    coarse_lse,
    salient,
    chosen,
    items,
    first_items,
    slots,
    starts,
    columns,
    out,
    lse,
    partial_out,
    partial_lse,
    scale,
    heads,
    query_length,
    key_length,
    blocks_x,
    items_per_head,
    slots_per_head,
    capacity,
    blocks_y,
    salient_keys,
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
    CHUNK: tl.constexpr,
    HAS_COARSE: tl.constexpr,
    HAS_SALIENT: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
    HAS_QUERY_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS queries of a block: out [G, Nq, V] and lse [G, Nq].

    ``starts`` [G, X + 1] and ``columns`` [G, capacity] list the key blocks that each chose. Where a
    list is cut, every chunk has a program of its own, which writes to partial_out [slots, b, V] and
    partial_lse [slots, b] instead; the first chunk's starts from the coarse scale, and has the keys
    ``salient`` [G, g] that are in no block that is ``chosen`` [G, X, Y].
    """
    pieces: tl.constexpr = BLOCK_SIZE // ROWS
    group, x, entries, length, is_first, slot = listed_work(
        items, first_items, slots, starts, columns,
        blocks_x, items_per_head, capacity, pieces, CHUNK,
    )  # fmt: skip
    batch, head, row = group // heads, group % heads, group * blocks_x + x
    total = length * BLOCK_SIZE
    keys = key + batch * key_stride_b + head * key_stride_h
    values = value + batch * value_stride_b + head * value_stride_h
    tokens = total
    if HAS_SALIENT:
        salient += group * salient_keys
        chosen += row * blocks_y
        tokens += tl.where(is_first, salient_keys, 0)

    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    positions = x * BLOCK_SIZE + tl.program_id(0) % pieces * ROWS + tl.arange(0, ROWS)  # [R]
    inside = positions < query_length
    queries = query + batch * query_stride_b + head * query_stride_h
    q = load_rows(queries, positions, channels, query_stride_n, inside, CHANNELS)  # [R, D]

    # The maximum, sum and accumulator of the coarse scale, the same for all queries of the block.
    if HAS_COARSE:
        level = tl.where(is_first, tl.load(coarse_lse + row) * LOG2E, float("-inf"))
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

    for step in range(0, tokens, KEYS_PER_STEP):
        at, keep = seen_tokens(
            entries, total, step, salient, salient_keys, chosen,
            BLOCK_SIZE, KEYS_PER_STEP, HAS_SALIENT,
        )  # fmt: skip
        keep &= at < key_length
        if HAS_KEY_MASK:
            real = tl.load(key_mask + batch * key_length + at, mask=keep, other=0)
            keep &= real != 0
        k = load_rows(keys, at, channels, key_stride_n, keep, CHANNELS)  # [N, D]
        v = load_rows(values, at, value_channels, value_stride_n, keep, VALUE_CHANNELS)  # [N, V]
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)  # [R, N]
        scores = tl.where(keep[None, :], scores, float("-inf"))
        maximum, shift, decay = raised(maximum, tl.max(scores, 1))  # [R]
        weights = tl.exp2(scores - shift[:, None])  # [R, N]
        total_weight = total_weight * decay + tl.sum(weights, 1)
        accumulator = accumulator * decay[:, None]
        accumulator += tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)  # [R, V]

    served = total_weight > 0
    if HAS_QUERY_MASK:
        real = tl.load(query_mask + batch * query_length + positions, mask=inside, other=0)
        served &= real != 0
    weight = tl.where(served, total_weight, 1.0)
    accumulator = tl.where(served[:, None], accumulator / weight[:, None], 0.0)
    level = tl.where(served, maximum / LOG2E + tl.log(weight), float("-inf"))

    rows = group * query_length + positions
    final = positions < tl.where(slot == -1, query_length, 0)
    tl.store(lse + rows, level, mask=final)
    kept = (value_channels < VALUE_CHANNELS)[None, :]
    tl.store(
        out + rows[:, None] * VALUE_CHANNELS + value_channels[None, :],
        accumulator.to(out.dtype.element_ty),
        mask=final[:, None] & kept,
    )
    if CHUNK > 0:
        rows = (group * slots_per_head + slot - x) * BLOCK_SIZE + positions
        tl.store(partial_lse + rows, level, mask=tl.arange(0, ROWS) < tl.where(slot >= 0, ROWS, 0))
        kept = (value_channels < tl.where(slot >= 0, VALUE_CHANNELS, 0))[None, :]
        tl.store(
            partial_out + rows[:, None] * VALUE_CHANNELS + value_channels[None, :],
            accumulator,
            mask=kept,
        )
