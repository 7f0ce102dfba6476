"""What several kernels share."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
# Numbers that change from call to call: a kernel is not compiled anew where one is 1, or a
# multiple of 16.
SIZES = [
    "heads", "query_length", "key_length", "length", "tokens", "blocks", "blocks_x", "lines",
    "rows", "stride_group", "capacity", "items_per_head", "slots_per_head", "budget",
    "first_blocks", "diagonal_blocks", "heads_sharing", "salient_keys",
]  # fmt: skip


@triton.jit
def load_rows(base, positions, channels, stride, keep, CHANNELS: tl.constexpr):
    """Rows ``positions`` of a [tokens, CHANNELS] matrix, 0 where not ``keep``: [n, padded]."""
    pointers = base + positions[:, None].to(tl.int64) * stride + channels[None, :]
    return tl.load(pointers, mask=keep[:, None] & (channels[None, :] < CHANNELS), other=0.0)


@triton.jit
def key_levels(key_counts, z, cells):
    """log₂ of how many keys the means of cells z stand for, -inf where there are none."""
    counts = tl.load(key_counts + z, mask=z < cells, other=0).to(tl.float32)
    return tl.where(counts > 0, tl.log2(tl.maximum(counts, 1.0)), float("-inf"))


@triton.jit
def tile_of_blocks(blocks, ROWS: tl.constexpr):
    """The batch row and head of a program that takes ROWS of so many blocks, and which: [R]."""
    tiles = tl.cdiv(blocks, ROWS)
    program = tl.program_id(0).to(tl.int64)
    first = (program % tiles * ROWS).to(tl.int32)
    return program // tiles, first + tl.arange(0, ROWS)


@triton.jit
def raised(maximum, level):
    """An online softmax's maximum raised to ``level``, the shift, and how the sums so far decay."""
    new = tl.maximum(maximum, level)
    shift = tl.where(new == float("-inf"), 0.0, new)
    return new, shift, tl.exp2(maximum - shift)


@triton.jit
def weighing(lse):
    """A log-sum-exp to the base of 2; where it is -inf, one that weighs everything with 0."""
    return tl.where(lse > float("-inf"), lse * LOG2E, float("inf"))


@triton.jit
def listed_tokens(entries, total, step, size: tl.constexpr, width: tl.constexpr):
    """Positions of tokens ``step`` to ``step + width`` of the blocks in a list, and which exist."""
    token = step + tl.arange(0, width)
    listed = token < total
    block = tl.load(entries + token // size, mask=listed, other=0)
    return block * size + token % size, listed


@triton.jit
def seen_tokens(
    entries,
    total,
    step,
    salient,
    salient_keys,
    chosen,
    size: tl.constexpr,
    width: tl.constexpr,
    HAS_SALIENT: tl.constexpr,
):
    """The same, with salient keys behind the listed blocks; but for those in ``chosen`` ones."""
    at, exists = listed_tokens(entries, total, step, size, width)
    if HAS_SALIENT:
        number = step + tl.arange(0, width) - total
        known = (number >= 0) & (number < salient_keys)
        place = tl.load(salient + number, mask=known, other=-1).to(tl.int32)
        elsewhere = tl.load(chosen + place // size, mask=place >= 0, other=1) == 0
        at = tl.where(elsewhere, place, at)
        exists |= elsewhere
    return at, exists


@triton.jit
def add_key_gradients(
    key_accumulator,
    value_accumulator,
    k,
    v,
    at,
    keep,
    allowed,
    queries,
    grads,
    levels,
    deltas,
    channels,
    value_channels,
    query_stride_n,
    grad_stride_n,
    scale,
    CHANNELS: tl.constexpr,
    VALUE_CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradients [R, D] and [R, V] of keys and values, with what M queries add to them.

    Queries are those ``at`` [M], where ``keep``; pairs those ``allowed``, [R, M] or [R, 1].
    """
    level = tl.load(levels + at, mask=keep, other=float("-inf"))  # [M]
    # What stands at queries without output may be anything, and must not be multiplied by 0.
    served = level > float("-inf")
    level = weighing(level)
    q = load_rows(queries, at, channels, query_stride_n, served, CHANNELS)  # [M, D]
    do = load_rows(grads, at, value_channels, grad_stride_n, served, VALUE_CHANNELS)  # [M, V]
    delta = tl.load(deltas + at, mask=keep, other=0.0)  # [M]
    scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2E)  # [R, M]
    weights = tl.exp2(tl.where(allowed, scores - level[None, :], float("-inf")))
    value_accumulator += tl.dot(weights.to(do.dtype), do, input_precision=PRECISION)  # [R, V]
    grad_weights = tl.dot(v, tl.trans(do), input_precision=PRECISION)  # [R, M]
    grad_scores = weights * (grad_weights - delta[None, :])
    key_accumulator += tl.dot(grad_scores.to(q.dtype), q, input_precision=PRECISION)  # [R, D]
    return key_accumulator, value_accumulator


@triton.jit
def listed_work(
    items,
    first_items,
    slots,
    starts,
    entries,
    lines,
    items_per_head,
    capacity,
    pieces: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Which block this program takes, and its list or, where lists are cut into chunks, a part.

    Returns:
        The batch row and head, the block's index there, its list, how many entries that holds,
        whether these are the list's first, and the slot for a partial result: -1 where the list is
        whole, -2 where a program has nothing to do; else one of its head's.
    """
    item = (tl.program_id(0) // pieces).to(tl.int64)
    if CHUNK == 0:
        group, line = item // lines, item % lines
        first = tl.load(starts + group * (lines + 1) + line)
        length = tl.load(starts + group * (lines + 1) + line + 1) - first
        is_first = item >= 0
        slot = (item * 0 - 1).to(tl.int32)
    else:
        group = item // items_per_head
        line = tl.load(items + item).to(tl.int64)
        known = tl.maximum(line, 0)
        chunk = (item % items_per_head - tl.load(first_items + group * lines + known)).to(tl.int32)
        first = tl.load(starts + group * (lines + 1) + known) + chunk * CHUNK
        end = tl.load(starts + group * (lines + 1) + known + 1)
        length = tl.where(line < 0, 0, tl.minimum(end - first, CHUNK))
        is_first = chunk == 0
        slot = tl.load(slots + group * lines + known)
        slot = tl.where(slot < 0, -1, slot + chunk)
        slot = tl.where(line < 0, -2, slot)
        line = known
    return group, line, entries + group * capacity + first, length, is_first, slot
