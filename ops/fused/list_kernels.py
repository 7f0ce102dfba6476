"""Counts the chosen blocks of lines, and lists them. L lines of a tile, W entries per step."""

import triton
import triton.language as tl


@triton.jit
def load_flags(chosen, group, line, at, lines, length, stride_group, stride_line, stride_entry):
    """Which entries ``at`` of the lines ``line`` are chosen, int32 [L, W]."""
    pointers = chosen + group * stride_group
    pointers += line[:, None].to(tl.int64) * stride_line + at[None, :].to(tl.int64) * stride_entry
    present = (line < lines)[:, None] & (at < length)[None, :]
    return tl.load(pointers, mask=present, other=0).to(tl.int32)


@triton.jit
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
    tiles = tl.cdiv(lines, LINES)
    program = tl.program_id(0).to(tl.int64)
    group, tile = program // tiles, (program % tiles).to(tl.int32)
    line = tile * LINES + tl.arange(0, LINES)  # [L]
    total = tl.zeros([LINES], tl.int32)
    for step in range(0, length, WIDTH):
        at = step + tl.arange(0, WIDTH)  # [W]
        flags = load_flags(
            chosen, group, line, at, lines, length, stride_group, stride_line, stride_entry
        )
        total += tl.sum(flags, 1)
    target = counts + group * (lines + 1)
    tl.store(target, 0, mask=tile == 0)
    tl.store(target + 1 + line, total, mask=line < lines)


@triton.jit
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
    tiles = tl.cdiv(lines, LINES)
    program = tl.program_id(0).to(tl.int64)
    group = program // tiles
    line = (program % tiles * LINES).to(tl.int32) + tl.arange(0, LINES)  # [L]
    slot = tl.load(starts + group * (lines + 1) + line, mask=line < lines, other=0)  # [L]
    for step in range(0, length, WIDTH):
        at = step + tl.arange(0, WIDTH)  # [W]
        flags = load_flags(
            chosen, group, line, at, lines, length, stride_group, stride_line, stride_entry
        )
        target = entries + group * capacity + slot[:, None] + tl.cumsum(flags, 1) - flags
        tl.store(target, tl.broadcast_to(at[None, :], [LINES, WIDTH]), mask=flags != 0)
        slot += tl.sum(flags, 1)
