"""Counts the chosen blocks of lines, lists them, and cuts long lists into chunks.

L lines of a tile, W entries per step.
"""

import triton
import triton.language as tl

from .parts import SIZES, tile_of_blocks


@triton.jit
def load_flags(chosen, group, line, at, lines, length, stride_group, stride_line, stride_entry):
    """Which entries ``at`` of the lines ``line`` are chosen, int32 [L, W]."""
    pointers = chosen + group * stride_group
    pointers += line[:, None].to(tl.int64) * stride_line + at[None, :].to(tl.int64) * stride_entry
    present = (line < lines)[:, None] & (at < length)[None, :]
    return tl.load(pointers, mask=present, other=0).to(tl.int32)


@triton.jit(do_not_specialize=SIZES)
def list_kernel(
    chosen,
    starts,
    entries,
    lines,
    length,
    capacity,
    stride_group,
    stride_line,
    stride_entry,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One program per head, of at most LINES lines of at most WIDTH entries: all of its lists.

    Writes starts [G, lines + 1] and entries [G, capacity].
    """
    group = tl.program_id(0).to(tl.int64)
    line, at = tl.arange(0, LINES), tl.arange(0, WIDTH)
    flags = load_flags(
        chosen, group, line, at, lines, length, stride_group, stride_line, stride_entry
    )
    counts = tl.sum(flags, 1)  # [L]
    start = tl.cumsum(counts, 0) - counts
    target = starts + group * (lines + 1)
    tl.store(target + line, start, mask=line < lines)
    tl.store(target + lines, tl.sum(counts, 0))
    target = entries + group * capacity + start[:, None] + tl.cumsum(flags, 1) - flags
    tl.store(target, tl.broadcast_to(at[None, :], [LINES, WIDTH]), mask=flags != 0)


@triton.jit(do_not_specialize=SIZES)
def count_kernel(
    chosen,
    counts,
    lines,
    length,
    stride_group,
    stride_line,
    stride_entry,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One program per LINES lines: counts [G, lines + 1], 0 and then how much each line holds."""
    group, line = tile_of_blocks(lines, LINES)  # [L]
    total = tl.zeros([LINES], tl.int32)
    for step in range(0, length, WIDTH):
        at = step + tl.arange(0, WIDTH)  # [W]
        flags = load_flags(
            chosen, group, line, at, lines, length, stride_group, stride_line, stride_entry
        )
        total += tl.sum(flags, 1)
    target = counts + group * (lines + 1)
    tl.store(target + line, 0, mask=line == 0)
    tl.store(target + 1 + line, total, mask=line < lines)


@triton.jit(do_not_specialize=SIZES)
def compact_kernel(
    chosen,
    starts,
    entries,
    lines,
    length,
    capacity,
    stride_group,
    stride_line,
    stride_entry,
    LINES: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """One program per LINES lines: writes which entries of each are chosen, in rising order."""
    group, line = tile_of_blocks(lines, LINES)  # [L]
    slot = tl.load(starts + group * (lines + 1) + line, mask=line < lines, other=0)  # [L]
    for step in range(0, length, WIDTH):
        at = step + tl.arange(0, WIDTH)  # [W]
        flags = load_flags(
            chosen, group, line, at, lines, length, stride_group, stride_line, stride_entry
        )
        target = entries + group * capacity + slot[:, None] + tl.cumsum(flags, 1) - flags
        tl.store(target, tl.broadcast_to(at[None, :], [LINES, WIDTH]), mask=flags != 0)
        slot += tl.sum(flags, 1)


@triton.jit(do_not_specialize=SIZES)
def cut_kernel(
    starts,
    items,
    first_items,
    slots,
    lines,
    items_per_head,
    LINES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """One program per head: the work that its lists make, in items of at most CHUNK entries.

    Writes items [G, items_per_head], the line of each or -1 behind the last; first_items
    [G, lines], where a line's begin; and slots [G, lines], where the partial results of a line of
    several items begin, -1 for a line of one.
    """
    group = tl.program_id(0).to(tl.int64)
    target = items + group * items_per_head
    item, slot = 0, 0
    for step in range(0, lines, LINES):
        line = step + tl.arange(0, LINES)  # [L]
        present = line < lines
        start = tl.load(starts + group * (lines + 1) + line, mask=present, other=0)
        end = tl.load(starts + group * (lines + 1) + line + 1, mask=present, other=0)
        # A line without entries has something to write as well.
        chunks = tl.where(present, tl.maximum(tl.cdiv(end - start, CHUNK), 1), 0)  # [L]
        partial = tl.where(chunks > 1, chunks, 0)
        first = item + tl.cumsum(chunks, 0) - chunks
        where = tl.where(chunks > 1, slot + tl.cumsum(partial, 0) - partial, -1)
        tl.store(first_items + group * lines + line, first, mask=present)
        tl.store(slots + group * lines + line, where, mask=present)
        for chunk in range(tl.max(chunks, 0)):
            tl.store(target + first + chunk, line, mask=chunk < chunks)
        item += tl.sum(chunks, 0)
        slot += tl.sum(partial, 0)
    for step in range(item, items_per_head, LINES):
        at = step + tl.arange(0, LINES)
        tl.store(target + at, tl.full([LINES], -1, tl.int32), mask=at < items_per_head)
