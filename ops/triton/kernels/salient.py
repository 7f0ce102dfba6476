"""Gradients of salient keys and values through queries that did not choose their blocks.

Shapes: R salient keys of a program, M queries per step, D and V channels of keys and values, padded
to powers of two.
"""

import triton
import triton.language as tl

from .parts import SIZES, add_key_gradients, load_rows


@triton.jit(do_not_specialize=[*SIZES, "blocks_y"])
def salient_kernel(
    query,
    key,
    value,
    grad_out,
    lse,
    delta,
    salient,
    chosen,
    partial,
    scale,
    heads,
    query_length,
    blocks_x,
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
    QUERIES_PER_STEP: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS salient keys and CHUNK queries of a head.

    Writes what the keys ``salient`` [G, g] get from those: partial [G, chunks, g, D + V].
    """
    tiles, chunks = tl.cdiv(salient_keys, ROWS), tl.cdiv(query_length, CHUNK)
    program = tl.program_id(0).to(tl.int64)
    part, tile = program // tiles, program % tiles
    group, chunk = part // chunks, (part % chunks).to(tl.int32)
    batch, head = group // heads, group % heads
    queries = query + batch * query_stride_b + head * query_stride_h
    keys = key + batch * key_stride_b + head * key_stride_h
    values = value + batch * value_stride_b + head * value_stride_h
    grads = grad_out + batch * grad_stride_b + head * grad_stride_h

    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    number = tile * ROWS + tl.arange(0, ROWS)  # [R]
    asked = number < salient_keys
    place = tl.load(salient + group * salient_keys + number, mask=asked, other=-1)  # [R]
    real = place >= 0
    k = load_rows(keys, place, channels, key_stride_n, real, CHANNELS)  # [R, D]
    v = load_rows(values, place, value_channels, value_stride_n, real, VALUE_CHANNELS)  # [R, V]
    columns = tl.maximum(place, 0) // BLOCK_SIZE  # [R]

    key_accumulator = tl.zeros([ROWS, PADDED_CHANNELS], tl.float32)
    value_accumulator = tl.zeros([ROWS, PADDED_VALUE_CHANNELS], tl.float32)
    length = tl.minimum(query_length - chunk * CHUNK, CHUNK)
    for step in range(0, length, QUERIES_PER_STEP):
        at = chunk * CHUNK + step + tl.arange(0, QUERIES_PER_STEP)  # [M]
        keep = at < query_length
        rows = group * blocks_x + at // BLOCK_SIZE  # [M]
        flags = tl.load(
            chosen + rows[None, :] * blocks_y + columns[:, None],
            mask=real[:, None] & keep[None, :],
            other=1,
        )  # [R, M]
        key_accumulator, value_accumulator = add_key_gradients(
            key_accumulator, value_accumulator, k, v, at, keep, flags == 0,
            queries, grads, lse + group * query_length, delta + group * query_length,
            channels, value_channels, query_stride_n, grad_stride_n, scale,
            CHANNELS, VALUE_CHANNELS, PRECISION,
        )  # fmt: skip

    width: tl.constexpr = CHANNELS + VALUE_CHANNELS
    target = partial + (part * salient_keys + number)[:, None] * width
    tl.store(
        target + channels[None, :],
        key_accumulator * scale,
        mask=asked[:, None] & (channels < CHANNELS)[None, :],
    )
    tl.store(
        target + CHANNELS + value_channels[None, :],
        value_accumulator,
        mask=asked[:, None] & (value_channels < VALUE_CHANNELS)[None, :],
    )
