"""Which block pairs are exact: ranks of all pairs, and the best of them.

A pair's rank is an integer of ``BITS`` bits, the smaller the sooner it is chosen; all bits are set
where a block holds no real token. Such integers compare exactly as the scores do, so the choice is
a search for the budget's last rank, bit by bit.
"""

import triton
import triton.language as tl

from .parts import SIZES, load_rows, tile_of_blocks


@triton.jit(do_not_specialize=SIZES)
def rank_kernel(
    query_means,
    key_means,
    query_counts,
    key_counts,
    ranks,
    scale,
    heads,
    blocks_x,
    blocks_y,
    first_blocks,
    diagonal_blocks,
    CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HAS_PRIORS: tl.constexpr,
    BITS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS query blocks of a head: ranks [G, X, Y].

    How far a coarse score falls behind its row's best is a float of at least 0, whose bits are in
    order; priors stand above them.
    """
    group, x = tile_of_blocks(blocks_x, ROWS)  # [R]
    batch = group // heads
    inside = x < blocks_x
    channels = tl.arange(0, PADDED_CHANNELS)
    queries = query_means + group * blocks_x * CHANNELS
    keys = key_means + group * blocks_y * CHANNELS
    q = load_rows(queries, x, channels, CHANNELS, inside, CHANNELS)  # [R, D]
    real_query = tl.load(query_counts + batch * blocks_x + x, mask=inside, other=0) > 0

    best = tl.full([ROWS], float("-inf"), tl.float32)
    for start in range(0, blocks_y, COLUMNS):
        y = start + tl.arange(0, COLUMNS)  # [C]
        k = load_rows(keys, y, channels, CHANNELS, y < blocks_y, CHANNELS)  # [C, D]
        real_key = tl.load(key_counts + batch * blocks_y + y, mask=y < blocks_y, other=0) > 0
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [R, C]
        best = tl.maximum(best, tl.max(tl.where(real_key[None, :], products, float("-inf")), 1))

    for start in range(0, blocks_y, COLUMNS):
        y = start + tl.arange(0, COLUMNS)  # [C]
        k = load_rows(keys, y, channels, CHANNELS, y < blocks_y, CHANNELS)  # [C, D]
        real_key = tl.load(key_counts + batch * blocks_y + y, mask=y < blocks_y, other=0) > 0
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [R, C]
        # Scaled after the difference, which would else be fused with the scaling of one side and
        # not be 0 for the best.
        behind = (best[:, None] - products) * scale
        # Not for nan: a rank is never negative.
        behind = tl.where(behind >= 0.0, behind, float("inf"))
        rank = behind.to(tl.int32, bitcast=True)
        unreal = (1 << BITS) - 1
        if HAS_PRIORS:
            rows_first, columns_first = x < first_blocks, y < first_blocks
            priors = rows_first[:, None].to(tl.int64) + columns_first[None, :].to(tl.int64)
            if diagonal_blocks > 0:
                near = tl.abs(x[:, None] - y[None, :]) <= diagonal_blocks // 2
                priors += near.to(tl.int64)
            rank = rank.to(tl.int64) + ((3 - priors) << 31)
        rank = tl.where(real_query[:, None] & real_key[None, :], rank, unreal)
        tl.store(
            ranks + (group * blocks_x + x)[:, None] * blocks_y + y[None, :],
            rank,
            mask=inside[:, None] & (y < blocks_y)[None, :],
        )


@triton.jit(do_not_specialize=SIZES)
def select_kernel(
    ranks,
    query_counts,
    chosen,
    budget,
    length,
    heads,
    blocks_x,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    PER_QUERY_BLOCK: tl.constexpr,
):
    """One program per line of ranks [lines, length]: marks the ``budget`` smallest in ``chosen``.

    A line is a row of pairs, or all pairs of a head: then the budget may count for each of its
    query blocks that holds a real token. Of equal ranks the first are taken.
    """
    line = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, WIDTH)
    unreal = (1 << BITS) - 1
    rank = tl.load(ranks + line * length + at, mask=at < length, other=unreal)  # [WIDTH]
    if PER_QUERY_BLOCK:
        counts = query_counts + line // heads * blocks_x
        budget *= tl.sum((tl.load(counts + at, mask=at < blocks_x, other=0) > 0).to(tl.int32), 0)
    budget = tl.minimum(budget, tl.sum((rank != unreal).to(tl.int32), 0))

    # The greatest rank with fewer than ``budget`` ranks below it.
    last = tl.full([], 0, ranks.dtype.element_ty)
    for step in range(BITS):
        candidate = last + (tl.full([], 1, ranks.dtype.element_ty) << (BITS - 1 - step))
        below = tl.sum((rank < candidate).to(tl.int32), 0)
        last = tl.where(below < budget, candidate, last)

    taken = rank < last
    ties = ((rank == last) & (rank != unreal)).to(tl.int32)
    spare = budget - tl.sum(taken.to(tl.int32), 0)
    taken |= (ties > 0) & (tl.cumsum(ties, 0) <= spare)
    tl.store(chosen + line * length + at, taken.to(tl.int8), mask=at < length)


@triton.jit(do_not_specialize=SIZES)
def tally_kernel(
    ranks,
    last,
    below,
    ties,
    rows,
    blocks_y,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
):
    """One program per row of pairs: how many ranks lie below its line's last, how many equal it.

    A line has ``rows`` rows; ``last`` is [lines], ``below`` and ``ties`` are [lines, rows].
    """
    row = tl.program_id(0).to(tl.int64)
    limit = tl.load(last + row // rows)
    unreal = (1 << BITS) - 1
    fewer, equal = 0, 0
    for start in range(0, blocks_y, WIDTH):
        at = start + tl.arange(0, WIDTH)
        rank = tl.load(ranks + row * blocks_y + at, mask=at < blocks_y, other=unreal)  # [WIDTH]
        fewer += tl.sum((rank < limit).to(tl.int32), 0)
        equal += tl.sum(((rank == limit) & (rank != unreal)).to(tl.int32), 0)
    tl.store(below + row, fewer)
    tl.store(ties + row, equal)


@triton.jit(do_not_specialize=SIZES)
def mark_kernel(
    ranks,
    last,
    spare,
    chosen,
    rows,
    blocks_y,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
):
    """One program per row of pairs: marks ranks below its line's last, and the first that equal it.

    ``spare`` [lines, rows] says how many of these.
    """
    row = tl.program_id(0).to(tl.int64)
    limit, left = tl.load(last + row // rows), tl.load(spare + row)
    unreal = (1 << BITS) - 1
    seen = 0
    for start in range(0, blocks_y, WIDTH):
        at = start + tl.arange(0, WIDTH)
        rank = tl.load(ranks + row * blocks_y + at, mask=at < blocks_y, other=unreal)  # [WIDTH]
        ties = ((rank == limit) & (rank != unreal)).to(tl.int32)
        taken = (rank < limit) | ((ties > 0) & (seen + tl.cumsum(ties, 0) <= left))
        tl.store(chosen + row * blocks_y + at, taken.to(tl.int8), mask=at < blocks_y)
        seen += tl.sum(ties, 0)
