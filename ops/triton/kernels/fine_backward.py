"""Gradients of queries, and of keys and values, through the chosen blocks.

Each program owns the rows that it writes, so nothing is added atomically and two runs agree to the
bit. Shapes as in the forward; R queries or keys of a program, M queries or N keys per step.
"""

import triton
import triton.language as tl

from .parts import LOG2E, SIZES, listed_tokens, listed_work, load_rows, weighing


@triton.jit
def store_gradient(
    grad,
    partial,
    accumulator,
    group,
    tokens,
    positions,
    block,
    slot,
    slots_per_head,
    channels,
    CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Writes rows of grad [G, N, C], or where a list is cut, of partial [slots, b, C]."""
    final = positions < tl.where(slot == -1, tokens, 0)
    tl.store(
        grad + (group * tokens + positions)[:, None] * CHANNELS + channels[None, :],
        accumulator.to(grad.dtype.element_ty),
        mask=final[:, None] & (channels < CHANNELS)[None, :],
    )
    if CHUNK > 0:
        rows = (group * slots_per_head + slot - block) * BLOCK_SIZE + positions
        kept = (channels < tl.where(slot >= 0, CHANNELS, 0))[None, :]
        tl.store(
            partial + rows[:, None] * CHANNELS + channels[None, :],
            accumulator,
            mask=kept,
        )


@triton.jit(do_not_specialize=SIZES)
def query_kernel(
    query,
    key,
    value,
    key_mask,
    grad_out,
    lse,
    delta,
    grad_share,
    items,
    first_items,
    slots,
    starts,
    columns,
    grad_query,
    partial_query,
    scale,
    heads,
    query_length,
    key_length,
    blocks_x,
    items_per_head,
    slots_per_head,
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
    grad_stride_b,
    grad_stride_h,
    grad_stride_n,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS_PER_STEP: tl.constexpr,
    CHUNK: tl.constexpr,
    HAS_COARSE: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS queries of a block: grad_query [G, Nq, D].

    ``grad_share`` [G, X, D] is what each real query of a block gets through its mean.
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

    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    positions = x * BLOCK_SIZE + tl.program_id(0) % pieces * ROWS + tl.arange(0, ROWS)  # [R]
    inside = positions < query_length
    rows = group * query_length + positions
    queries = query + batch * query_stride_b + head * query_stride_h
    grads = grad_out + batch * grad_stride_b + head * grad_stride_h
    level = tl.load(lse + rows, mask=inside, other=float("-inf"))  # [R]
    served = level > float("-inf")
    level = weighing(level)
    q = load_rows(queries, positions, channels, query_stride_n, served, CHANNELS)  # [R, D]
    do = load_rows(grads, positions, value_channels, grad_stride_n, served, VALUE_CHANNELS)
    deltas = tl.load(delta + rows, mask=served, other=0.0)  # [R]

    accumulator = tl.zeros([ROWS, PADDED_CHANNELS], tl.float32)
    for step in range(0, total, KEYS_PER_STEP):
        at, keep = listed_tokens(entries, total, step, BLOCK_SIZE, KEYS_PER_STEP)
        keep &= at < key_length
        if HAS_KEY_MASK:
            real = tl.load(key_mask + batch * key_length + at, mask=keep, other=0)
            keep &= real != 0
        k = load_rows(keys, at, channels, key_stride_n, keep, CHANNELS)  # [N, D]
        v = load_rows(values, at, value_channels, value_stride_n, keep, VALUE_CHANNELS)  # [N, V]
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)  # [R, N]
        weights = tl.exp2(tl.where(keep[None, :], scores - level[:, None], float("-inf")))
        grad_weights = tl.dot(do, tl.trans(v), input_precision=PRECISION)  # [R, N]
        grad_scores = weights * (grad_weights - deltas[:, None])
        accumulator += tl.dot(grad_scores.to(k.dtype), k, input_precision=PRECISION)  # [R, D]

    accumulator *= scale
    if HAS_COARSE:
        kept = channels < tl.where(is_first, CHANNELS, 0)
        share = tl.load(grad_share + row * CHANNELS + channels, mask=kept, other=0.0)  # [D]
        accumulator += tl.where(served[:, None], share[None, :], 0.0)
    store_gradient(
        grad_query, partial_query, accumulator, group, query_length, positions,
        x, slot, slots_per_head, channels, CHANNELS, BLOCK_SIZE, CHUNK,
    )  # fmt: skip


@triton.jit(do_not_specialize=SIZES)
def key_value_kernel(
    query,
    key,
    value,
    key_mask,
    grad_out,
    lse,
    delta,
    grad_key_share,
    grad_value_share,
    items,
    first_items,
    slots,
    starts,
    rows_listed,
    grad_key,
    grad_value,
    partial_key,
    partial_value,
    scale,
    heads,
    query_length,
    key_length,
    blocks_y,
    items_per_head,
    slots_per_head,
    capacity,
    cells,
    query_stride_b,
    query_stride_h,
    query_stride_n,
    key_stride_b,
    key_stride_h,
    key_stride_n,
    value_stride_b,
    value_stride_h,
    value_stride_n,
    grad_stride_b,
    grad_stride_h,
    grad_stride_n,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    CELL_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    QUERIES_PER_STEP: tl.constexpr,
    CHUNK: tl.constexpr,
    HAS_COARSE: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS keys of a block: grad_key [G, Nk, D] and grad_value [G, Nk, V].

    ``starts`` [G, Y + 1] and ``rows_listed`` [G, capacity] list the query blocks that chose it;
    ``grad_key_share`` [G, Z, D] and ``grad_value_share`` [G, Z, V] are what each key of a cell gets
    through the cell's means.
    """
    pieces: tl.constexpr = BLOCK_SIZE // ROWS
    group, y, entries, length, is_first, slot = listed_work(
        items, first_items, slots, starts, rows_listed,
        blocks_y, items_per_head, capacity, pieces, CHUNK,
    )  # fmt: skip
    batch, head = group // heads, group % heads
    total = length * BLOCK_SIZE
    queries = query + batch * query_stride_b + head * query_stride_h
    grads = grad_out + batch * grad_stride_b + head * grad_stride_h

    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    positions = y * BLOCK_SIZE + tl.program_id(0) % pieces * ROWS + tl.arange(0, ROWS)  # [R]
    inside = positions < key_length
    real = inside
    if HAS_KEY_MASK:
        real &= tl.load(key_mask + batch * key_length + positions, mask=inside, other=0) != 0
    keys = key + batch * key_stride_b + head * key_stride_h
    values = value + batch * value_stride_b + head * value_stride_h
    k = load_rows(keys, positions, channels, key_stride_n, real, CHANNELS)  # [R, D]
    v = load_rows(values, positions, value_channels, value_stride_n, real, VALUE_CHANNELS)

    key_accumulator = tl.zeros([ROWS, PADDED_CHANNELS], tl.float32)
    value_accumulator = tl.zeros([ROWS, PADDED_VALUE_CHANNELS], tl.float32)
    for step in range(0, total, QUERIES_PER_STEP):
        at, keep = listed_tokens(entries, total, step, BLOCK_SIZE, QUERIES_PER_STEP)
        keep &= at < query_length
        level = tl.load(lse + group * query_length + at, mask=keep, other=float("-inf"))  # [M]
        # What stands at queries without output may be anything, and must not be multiplied by 0.
        served = level > float("-inf")
        level = weighing(level)
        q = load_rows(queries, at, channels, query_stride_n, served, CHANNELS)  # [M, D]
        do = load_rows(grads, at, value_channels, grad_stride_n, served, VALUE_CHANNELS)  # [M, V]
        deltas = tl.load(delta + group * query_length + at, mask=keep, other=0.0)  # [M]
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2E)  # [R, M]
        weights = tl.exp2(tl.where(real[:, None], scores - level[None, :], float("-inf")))
        value_accumulator += tl.dot(weights.to(do.dtype), do, input_precision=PRECISION)  # [R, V]
        grad_weights = tl.dot(v, tl.trans(do), input_precision=PRECISION)  # [R, M]
        grad_scores = weights * (grad_weights - deltas[None, :])
        key_accumulator += tl.dot(grad_scores.to(q.dtype), q, input_precision=PRECISION)  # [R, D]

    key_accumulator *= scale
    if HAS_COARSE:
        counted = real & (positions < tl.where(is_first, key_length, 0))
        cell = group * cells + positions // CELL_SIZE  # [R]
        key_accumulator += load_rows(
            grad_key_share, cell, channels, CHANNELS, counted, CHANNELS
        )  # [R, D]
        value_accumulator += load_rows(
            grad_value_share, cell, value_channels, VALUE_CHANNELS, counted, VALUE_CHANNELS
        )  # [R, V]
    store_gradient(
        grad_key, partial_key, key_accumulator, group, key_length, positions,
        y, slot, slots_per_head, channels, CHANNELS, BLOCK_SIZE, CHUNK,
    )  # fmt: skip
    store_gradient(
        grad_value, partial_value, value_accumulator, group, key_length, positions,
        y, slot, slots_per_head, value_channels, VALUE_CHANNELS, BLOCK_SIZE, CHUNK,
    )  # fmt: skip
