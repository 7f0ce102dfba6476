"""Which block pairs are exact: ranks of all pairs, and the best of them.

A pair's rank is an integer of ``BITS`` bits, the smaller the sooner it is chosen; all bits are set
where a block holds no real token. Such integers compare exactly as the scores do, so the choice is
a search for the budget's last rank, bit by bit.
"""

import triton
import triton.language as tl

from .parts import LOG2E, SIZES, key_levels, load_rows, raised, tile_of_blocks


@triton.jit
def load_queries(
    query_means,
    query_counts,
    heads,
    blocks_x,
    channels,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """A program's batch row and head, its query blocks [R], their means [R, D], which are real."""
    group, x = tile_of_blocks(blocks_x, ROWS)  # [R]
    inside = x < blocks_x
    queries = query_means + group * blocks_x * CHANNELS
    q = load_rows(queries, x, channels, CHANNELS, inside, CHANNELS)  # [R, D]
    tokens = tl.load(query_counts + group // heads * blocks_x + x, mask=inside, other=0)  # [R]
    return group, x, q, tokens > 0


@triton.jit
def load_block_means(
    keys,
    counts,
    y,
    blocks_y,
    cells,
    channels,
    CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELLS: tl.constexpr,
):
    """Means of the keys of blocks y, [C, D], from their CELLS cells; and which have any, [C]."""
    if CELLS == 1:
        k = load_rows(keys, y, channels, CHANNELS, y < blocks_y, CHANNELS)  # [C, D]
        count = tl.load(counts + y, mask=y < blocks_y, other=0)  # [C]
    else:
        k = tl.zeros([COLUMNS, PADDED_CHANNELS], tl.float32)
        count = tl.zeros([COLUMNS], tl.int32)
        for cell in range(CELLS):
            z = y * CELLS + cell  # [C]
            held = tl.load(counts + z, mask=z < cells, other=0)  # [C]
            rows = load_rows(keys, z, channels, CHANNELS, z < cells, CHANNELS)  # [C, D]
            k += rows * held.to(tl.float32)[:, None]
            count += held
        k /= tl.maximum(count, 1).to(tl.float32)[:, None]
    return k, count > 0


@triton.jit
def store_ranks(
    ranks,
    behind,
    real,
    group,
    x,
    y,
    blocks_x,
    blocks_y,
    first_blocks,
    diagonal_blocks,
    HAS_PRIORS: tl.constexpr,
    BITS: tl.constexpr,
):
    """Ranks of pairs that fall ``behind`` [R, C] so far, where both blocks are ``real`` [R, C].

    The bits of a float of at least 0 are in order; priors stand above them.
    """
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
    rank = tl.where(real, rank, unreal)
    tl.store(
        ranks + (group * blocks_x + x)[:, None] * blocks_y + y[None, :],
        rank,
        mask=(x < blocks_x)[:, None] & (y < blocks_y)[None, :],
    )


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
    cells,
    heads_sharing,
    first_blocks,
    diagonal_blocks,
    CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELLS: tl.constexpr,
    HAS_PRIORS: tl.constexpr,
    BITS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS query blocks of a head: ranks [G, X, Y] by the means of blocks.

    What counts is how far a coarse score falls behind its row's best.
    """
    channels = tl.arange(0, PADDED_CHANNELS)
    group, x, q, real_query = load_queries(
        query_means, query_counts, heads, blocks_x, channels, CHANNELS, ROWS
    )
    keys = key_means + group * cells * CHANNELS
    counts = key_counts + group // heads_sharing * cells

    best = tl.full([ROWS], float("-inf"), tl.float32)
    for start in range(0, blocks_y, COLUMNS):
        y = start + tl.arange(0, COLUMNS)  # [C]
        k, real_key = load_block_means(
            keys, counts, y, blocks_y, cells, channels, CHANNELS, PADDED_CHANNELS, COLUMNS, CELLS
        )  # [C, D], [C]
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [R, C]
        best = tl.maximum(best, tl.max(tl.where(real_key[None, :], products, float("-inf")), 1))

    for start in range(0, blocks_y, COLUMNS):
        y = start + tl.arange(0, COLUMNS)  # [C]
        k, real_key = load_block_means(
            keys, counts, y, blocks_y, cells, channels, CHANNELS, PADDED_CHANNELS, COLUMNS, CELLS
        )  # [C, D], [C]
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)  # [R, C]
        # Scaled after the difference, which would else be fused with the scaling of one side and
        # not be 0 for the best.
        behind = (best[:, None] - products) * scale
        real = real_query[:, None] & real_key[None, :]
        store_ranks(
            ranks, behind, real, group, x, y, blocks_x, blocks_y,
            first_blocks, diagonal_blocks, HAS_PRIORS, BITS,
        )  # fmt: skip


@triton.jit(do_not_specialize=SIZES)
def rank_by_mass_kernel(
    query_means,
    key_means,
    query_counts,
    key_counts,
    ranks,
    scale,
    heads,
    blocks_x,
    blocks_y,
    cells,
    heads_sharing,
    first_blocks,
    diagonal_blocks,
    CHANNELS: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CELLS: tl.constexpr,
    HAS_PRIORS: tl.constexpr,
    BITS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program per ROWS query blocks of a head: ranks [G, X, Y] by the masses of blocks.

    A cell weighs n_z e^ŝ. What counts is the logarithm of how much a row weighs less that of how
    much of it a block's CELLS cells do; to the base of 2, which changes no order.
    """
    channels = tl.arange(0, PADDED_CHANNELS)
    group, x, q, real_query = load_queries(
        query_means, query_counts, heads, blocks_x, channels, CHANNELS, ROWS
    )
    keys = key_means + group * cells * CHANNELS
    counts = key_counts + group // heads_sharing * cells

    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, cells, COLUMNS):
        z = start + tl.arange(0, COLUMNS)  # [C]
        k = load_rows(keys, z, channels, CHANNELS, z < cells, CHANNELS)  # [C, D]
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)  # [R, C]
        scores += key_levels(counts, z, cells)[None, :]
        best, shift, decay = raised(best, tl.max(scores, 1))  # [R]
        total = total * decay + tl.sum(tl.exp2(scores - shift[:, None]), 1)
    best = tl.where(best == float("-inf"), 0.0, best)
    # A sum holds its greatest, as 1, or nothing, and then it is of no account.
    total = tl.log2(tl.maximum(total, 1.0))

    for start in range(0, blocks_y, COLUMNS):
        y = start + tl.arange(0, COLUMNS)  # [C]
        # One cell of every block after another: each element has an online softmax of its own.
        greatest = tl.full([ROWS, COLUMNS], float("-inf"), tl.float32)
        mass = tl.zeros([ROWS, COLUMNS], tl.float32)
        for cell in range(CELLS):
            z = y * CELLS + cell  # [C]
            k = load_rows(keys, z, channels, CHANNELS, z < cells, CHANNELS)  # [C, D]
            scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2E)  # [R, C]
            scores += key_levels(counts, z, cells)[None, :]
            greatest, shift, decay = raised(greatest, scores)  # [R, C]
            mass = mass * decay + tl.exp2(scores - shift)
        mass = tl.log2(tl.maximum(mass, 1.0))
        behind = total[:, None] - ((greatest - best[:, None]) + mass)
        # A block with all of the mass may be rounded to more than that.
        behind = tl.where(behind < 0.0, 0.0, behind)
        real = real_query[:, None] & (greatest > float("-inf"))
        store_ranks(
            ranks, behind, real, group, x, y, blocks_x, blocks_y,
            first_blocks, diagonal_blocks, HAS_PRIORS, BITS,
        )  # fmt: skip


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
