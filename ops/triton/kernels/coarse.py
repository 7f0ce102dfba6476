"""Attention of query blocks over cells of keys that are not exact, forward and backward.

Shapes: R query blocks and C cells per tile, D and V channels of keys and values, padded to
powers of two. The matrix of probabilities is formed tile by tile and never stored.
"""

import triton
import triton.language as tl

from .parts import LOG2E, SIZES, key_levels, load_rows, raised, tile_of_blocks, weighing


@triton.jit
def is_inexact(chosen, rows, z, inside, blocks_y, CELLS: tl.constexpr):
    """Where query blocks ``rows``, if ``inside``, did not choose the blocks of cells z.

    A block has CELLS of them.
    """
    y = z // CELLS
    flags = tl.load(chosen + rows * blocks_y + y, mask=inside & (y < blocks_y), other=1)
    return flags == 0


@triton.jit
def load_cells(
    q,
    keys,
    values,
    counts,
    z,
    cells,
    channels,
    value_channels,
    scale,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Means of cells z, [C, D] and [C, V], and what query blocks q [R, D] score with them, [R, C].

    Scores are to the base of 2, and count each cell as often as it has keys.
    """
    present = z < cells
    k = load_rows(keys, z, channels, CHANNELS, present, CHANNELS)  # [C, D]
    v = load_rows(values, z, value_channels, VALUE_CHANNELS, present, VALUE_CHANNELS)  # [C, V]
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)  # [R, C]
    return k, v, scores + key_levels(counts, z, cells)[None, :]


@triton.jit(do_not_specialize=SIZES)
def coarse_forward_kernel(
    query_means,
    key_means,
    value_means,
    key_counts,
    chosen,
    out,
    lse,
    scale,
    blocks_x,
    blocks_y,
    cells,
    heads_sharing,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELLS: tl.constexpr,
    SCORE_PRECISION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS query blocks of a head: out [G, X, V] and lse [G, X].

    0 and -inf for a block that has nothing left to attend to.
    """
    group, x = tile_of_blocks(blocks_x, ROWS)  # [R]
    inside = x < blocks_x
    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    queries = query_means + group * blocks_x * CHANNELS
    keys = key_means + group * cells * CHANNELS
    values = value_means + group * cells * VALUE_CHANNELS
    counts = key_counts + group // heads_sharing * cells
    rows = group * blocks_x + x
    q = load_rows(queries, x, channels, CHANNELS, inside, CHANNELS)  # [R, D]

    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total_weight = tl.zeros([ROWS], tl.float32)
    accumulator = tl.zeros([ROWS, PADDED_VALUE_CHANNELS], tl.float32)
    for start in range(0, cells, COLUMNS):
        z = start + tl.arange(0, COLUMNS)  # [C]
        _k, v, scores = load_cells(
            q, keys, values, counts, z, cells, channels, value_channels, scale,
            CHANNELS, VALUE_CHANNELS, SCORE_PRECISION,
        )  # fmt: skip
        inexact = is_inexact(chosen, rows[:, None], z[None, :], inside[:, None], blocks_y, CELLS)
        scores = tl.where(inexact, scores, float("-inf"))  # [R, C]
        maximum, shift, decay = raised(maximum, tl.max(scores, 1))  # [R]
        weights = tl.exp2(scores - shift[:, None])  # [R, C]
        total_weight = total_weight * decay + tl.sum(weights, 1)
        accumulator = accumulator * decay[:, None]
        accumulator += tl.dot(weights, v, input_precision=PRECISION)  # [R, V]

    served = total_weight > 0
    weight = tl.where(served, total_weight, 1.0)
    tl.store(
        lse + rows,
        tl.where(served, maximum / LOG2E + tl.log(weight), float("-inf")),
        mask=inside,
    )
    tl.store(
        out + rows[:, None] * VALUE_CHANNELS + value_channels[None, :],
        tl.where(served[:, None], accumulator / weight[:, None], 0.0),
        mask=inside[:, None] & (value_channels < VALUE_CHANNELS)[None, :],
    )


@triton.jit(do_not_specialize=SIZES)
def coarse_query_kernel(
    query_means,
    key_means,
    value_means,
    query_counts,
    key_counts,
    chosen,
    lse,
    pulled,
    pulled_delta,
    query_share,
    heads,
    scale,
    blocks_x,
    blocks_y,
    cells,
    heads_sharing,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELLS: tl.constexpr,
    SCORE_PRECISION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS query blocks of a head: query_share [G, X, D].

    What each real query of a block gets of the gradient of the block's mean.
    """
    group, x = tile_of_blocks(blocks_x, ROWS)  # [R]
    inside = x < blocks_x
    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    keys = key_means + group * cells * CHANNELS
    values = value_means + group * cells * VALUE_CHANNELS
    counts = key_counts + group // heads_sharing * cells
    rows = group * blocks_x + x
    q = load_rows(query_means, rows, channels, CHANNELS, inside, CHANNELS)  # [R, D]
    w = load_rows(pulled, rows, value_channels, VALUE_CHANNELS, inside, VALUE_CHANNELS)  # [R, V]
    deltas = tl.load(pulled_delta + rows, mask=inside, other=0.0)  # [R]
    level = weighing(tl.load(lse + rows, mask=inside, other=float("-inf")))  # [R]

    accumulator = tl.zeros([ROWS, PADDED_CHANNELS], tl.float32)
    for start in range(0, cells, COLUMNS):
        z = start + tl.arange(0, COLUMNS)  # [C]
        k, v, scores = load_cells(
            q, keys, values, counts, z, cells, channels, value_channels, scale,
            CHANNELS, VALUE_CHANNELS, SCORE_PRECISION,
        )  # fmt: skip
        inexact = is_inexact(chosen, rows[:, None], z[None, :], inside[:, None], blocks_y, CELLS)
        weights = tl.exp2(tl.where(inexact, scores - level[:, None], float("-inf")))  # [R, C]
        grad_weights = tl.dot(w, tl.trans(v), input_precision=PRECISION)  # [R, C]
        grad_scores = weights * (grad_weights - deltas[:, None])
        accumulator += tl.dot(grad_scores, k, input_precision=PRECISION)  # [R, D]

    tokens = tl.load(query_counts + group // heads * blocks_x + x, mask=inside, other=1)
    accumulator *= (scale / tl.maximum(tokens, 1).to(tl.float32))[:, None]
    tl.store(
        query_share + rows[:, None] * CHANNELS + channels[None, :],
        accumulator,
        mask=inside[:, None] & (channels < CHANNELS)[None, :],
    )


@triton.jit(do_not_specialize=SIZES)
def coarse_key_value_kernel(
    query_means,
    key_means,
    value_means,
    key_counts,
    chosen,
    lse,
    pulled,
    pulled_delta,
    key_share,
    value_share,
    scale,
    blocks_x,
    blocks_y,
    cells,
    heads_sharing,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELLS: tl.constexpr,
    SCORE_PRECISION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS cells of a head: key_share [G, Z, D] and value_share [G, Z, V].

    What each token of a cell's mean gets of the gradients of the cell's means; here C query blocks
    per step.
    """
    group, z = tile_of_blocks(cells, ROWS)  # [R]
    counts = key_counts + group // heads_sharing * cells
    inside = z < cells
    channels = tl.arange(0, PADDED_CHANNELS)
    value_channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    columns = group * cells + z
    k = load_rows(key_means, columns, channels, CHANNELS, inside, CHANNELS)  # [R, D]
    v = load_rows(value_means, columns, value_channels, VALUE_CHANNELS, inside, VALUE_CHANNELS)
    levels = key_levels(counts, z, cells)  # [R]

    key_accumulator = tl.zeros([ROWS, PADDED_CHANNELS], tl.float32)
    value_accumulator = tl.zeros([ROWS, PADDED_VALUE_CHANNELS], tl.float32)
    for start in range(0, blocks_x, COLUMNS):
        x = start + tl.arange(0, COLUMNS)  # [C]
        present = x < blocks_x
        rows = group * blocks_x + x
        q = load_rows(query_means, rows, channels, CHANNELS, present, CHANNELS)  # [C, D]
        w = load_rows(pulled, rows, value_channels, VALUE_CHANNELS, present, VALUE_CHANNELS)
        deltas = tl.load(pulled_delta + rows, mask=present, other=0.0)  # [C]
        level = weighing(tl.load(lse + rows, mask=present, other=float("-inf")))  # [C]
        inexact = is_inexact(chosen, rows[None, :], z[:, None], present[None, :], blocks_y, CELLS)
        scores = tl.dot(k, tl.trans(q), input_precision=SCORE_PRECISION) * (scale * LOG2E)
        scores += levels[:, None]
        weights = tl.exp2(tl.where(inexact, scores - level[None, :], float("-inf")))  # [R, C]
        value_accumulator += tl.dot(weights, w, input_precision=PRECISION)  # [R, V]
        grad_weights = tl.dot(v, tl.trans(w), input_precision=PRECISION)  # [R, C]
        grad_scores = weights * (grad_weights - deltas[None, :])
        key_accumulator += tl.dot(grad_scores, q, input_precision=PRECISION)  # [R, D]

    tokens = tl.load(counts + z, mask=inside, other=1)
    share = 1.0 / tl.maximum(tokens, 1).to(tl.float32)  # [R]
    tl.store(
        key_share + columns[:, None] * CHANNELS + channels[None, :],
        key_accumulator * (scale * share)[:, None],
        mask=inside[:, None] & (channels < CHANNELS)[None, :],
    )
    tl.store(
        value_share + columns[:, None] * VALUE_CHANNELS + value_channels[None, :],
        value_accumulator * share[:, None],
        mask=inside[:, None] & (value_channels < VALUE_CHANNELS)[None, :],
    )
