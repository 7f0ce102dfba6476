"""Writes the lists of chosen blocks."""

import triton
import triton.language as tl


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
    WIDTH: tl.constexpr,
):
    """One program per line: writes where it is set, in rising order."""
    program = tl.program_id(0).to(tl.int64)
    group, line = program // lines, program % lines
    flags = chosen + group * stride_group + line * stride_line
    target = entries + group * capacity + tl.load(starts + group * (lines + 1) + line)
    written = 0
    for step in range(0, length, WIDTH):
        at = step + tl.arange(0, WIDTH)
        flag = tl.load(flags + at.to(tl.int64) * stride_entry, mask=at < length, other=0)
        flag = flag.to(tl.int32)  # [WIDTH]
        slot = written + tl.cumsum(flag, 0) - flag
        tl.store(target + slot, at, mask=flag != 0)
        written += tl.sum(flag, 0)
