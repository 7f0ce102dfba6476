"""Gradients of queries, and of keys and values, through the chosen blocks and salient keys.

Each program owns the rows that it writes, so nothing is added atomically and two runs agree to the
bit. Shapes as in the forward; R queries or keys of a program, M queries or N keys per step.
"""

import triton
import triton.language as tl

from .parts import (
    LOG2E,
    SIZES,
    add_key_gradients,
    listed_tokens,
    listed_work,
    load_rows,
    seen_tokens,
    weighing,
)


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


@triton.jit
def load_shares(
    shares,
    first,
    positions,
    keep,
    cells,
    channels,
    CHANNELS: tl.constexpr,
    CELL_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
):
    """What ROWS keys from ``first`` on get, where ``keep``, through their cells' means: [R, C].

    ``shares`` [cells, C] are a head's.
    """
    if CELL_SIZE >= ROWS:
        # All of one cell.
        cell = first // CELL_SIZE
        kept = channels < tl.where(cell < cells, CHANNELS, 0)
        share = tl.load(shares + cell * CHANNELS + channels, mask=kept, other=0.0)  # [C]
        rows = tl.where(keep[:, None], share[None, :], 0.0)
    else:
        rows = load_rows(shares, positions // CELL_SIZE, channels, CHANNELS, keep, CHANNELS)
    return rows


@triton.jit(do_not_specialize=[*SIZES, "blocks_y"])
def query_kernel(
    query,
    key,
    value,
    key_mask,
    grad_out,
    lse,
    delta,
    grad_share,
    salient,
    chosen,
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
    HAS_SALIENT: tl.constexpr,
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
    tokens = total
    if HAS_SALIENT:
        salient += group * salient_keys
        chosen += row * blocks_y
        tokens += tl.where(is_first, salient_keys, 0)

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
    salient_at,
    salient_grads,
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
    HAS_SALIENT: tl.constexpr,
    HAS_KEY_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS keys of a block: grad_key [G, Nk, D] and grad_value [G, Nk, V].

    ``starts`` [G, Y + 1] and ``rows_listed`` [G, capacity] list the query blocks that chose it;
    ``grad_key_share`` [G, Z, D] and ``grad_value_share`` [G, Z, V] are what each key of a cell gets
    through the cell's means. A key's number among salient ones stands behind its own place in
    ``salient_at`` [G, Nk + 1], -1 for others; what these get where their block is not chosen is
    ``salient_grads`` [G, g, D + V].
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
    first = y * BLOCK_SIZE + tl.program_id(0) % pieces * ROWS
    positions = first + tl.arange(0, ROWS)  # [R]
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
        key_accumulator, value_accumulator = add_key_gradients(
            key_accumulator, value_accumulator, k, v, at, keep & (at < query_length), real[:, None],
            queries, grads, lse + group * query_length, delta + group * query_length,
            channels, value_channels, query_stride_n, grad_stride_n, scale,
            CHANNELS, VALUE_CHANNELS, PRECISION,
        )  # fmt: skip

    # Keys are done before values begin: both at once need more registers than there are.
    key_accumulator *= scale
    added = real & (positions < tl.where(is_first, key_length, 0))
    averaged = added
    if HAS_SALIENT:
        number = group * (key_length + 1) + 1 + positions
        number = tl.load(salient_at + number, mask=added, other=-1)  # [R]
        averaged &= number < 0
        added &= number >= 0
        width: tl.constexpr = CHANNELS + VALUE_CHANNELS
        own = salient_grads + group * salient_keys * width
        key_accumulator += load_rows(own, number, channels, width, added, CHANNELS)  # [R, D]
    if HAS_COARSE:
        key_accumulator += load_shares(
            grad_key_share + group * cells * CHANNELS, first, positions, averaged, cells,
            channels, CHANNELS, CELL_SIZE, ROWS,
        )  # fmt: skip
    store_gradient(
        grad_key, partial_key, key_accumulator, group, key_length, positions,
        y, slot, slots_per_head, channels, CHANNELS, BLOCK_SIZE, CHUNK,
    )  # fmt: skip
    if HAS_SALIENT:
        value_accumulator += load_rows(
            own + CHANNELS, number, value_channels, width, added, VALUE_CHANNELS
        )  # [R, V]
    if HAS_COARSE:
        value_accumulator += load_shares(
            grad_value_share + group * cells * VALUE_CHANNELS, first, positions, averaged, cells,
            value_channels, VALUE_CHANNELS, CELL_SIZE, ROWS,
        )  # fmt: skip
    store_gradient(
        grad_value, partial_value, value_accumulator, group, key_length, positions,
        y, slot, slots_per_head, value_channels, VALUE_CHANNELS, BLOCK_SIZE, CHUNK,
    )  # fmt: skip
