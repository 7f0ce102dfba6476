"""Which blocks a block chose, or was chosen by, as lists in compressed rows (CSR).

Built without waiting for the device: the lists have room for the largest possible number of
entries, and only their starts say how many there are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..launching import as_bytes, run
from ..problem import Problem
from .kernels.lists import compact_kernel, count_kernel, cut_kernel, list_kernel

# Lines and entries of the largest matrix that one program lists, and of a tile of a larger one.
_SMALL = 64
_LINES, _WIDTH = 32, 64
_LINES_CUT = 1024
# The longest work of one program, so that many share a long list.
_TOKENS_PER_ITEM = 4096
# Tokens of a block that one program puts together.
MERGED_ROWS = 16


class Lists(NamedTuple):
    """One list per line of a matrix of blocks; L lines and G heads.

    A list of more than ``chunk`` entries is cut, so that no program works on while all others are
    done: an item of work is a whole list or a chunk of one. Without ``chunk`` none is that long.

    Attributes:
        starts: int32 [G, L + 1], where each line's entries begin in its head's.
        entries: int32 [G, capacity].
        chunk: the most entries of an item, or 0.
        items: int32 [G, I], the line of each item, -1 behind the last.
        first_items: int32 [G, L], where the items of a line begin.
        slots: int32 [G, L], where partial results of a line begin among its head's, -1 if whole.
        slots_per_head: the most slots that a head can need.
    """

    starts: Tensor
    entries: Tensor
    chunk: int = 0
    items: Tensor | None = None
    first_items: Tensor | None = None
    slots: Tensor | None = None
    slots_per_head: int = 0

    @property
    def items_per_head(self) -> int:
        """I, with room for the most chunks that there can be."""
        return self.starts.shape[1] - 1 if self.items is None else self.items.shape[1]

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """What kernels find an item's entries by."""
        return self.items, self.first_items, self.slots, self.starts, self.entries

    @property
    def lengths(self) -> tuple[int, int, int, int]:
        """Lines, items, slots and entries of a head."""
        lines = self.starts.shape[1] - 1
        return lines, self.items_per_head, self.slots_per_head, self.entries.shape[1]

    def programs(self, pieces: int) -> int:
        """Programs for all items, ``pieces`` for a block each."""
        return self.starts.shape[0] * self.items_per_head * pieces

    def partial(self, block_size: int, *channels: int) -> Tensor | None:
        """Room for partial results of cut lists, float32 [slots, block_size, *channels]."""
        if self.items is None:
            return None
        slots = self.starts.shape[0] * self.slots_per_head
        return self.starts.new_empty(slots, block_size, *channels, dtype=torch.float32)


def row_lists(problem: Problem, chosen: Tensor) -> Lists:
    """What each query block chose, of bool [B, H, X, Y]."""
    options = problem.options
    longest = problem.capacity
    if options.selection == "per_row":
        longest = max(options.block_per_row, problem.short_blocks)
    return _lists(problem, chosen.flatten(0, 1), min(longest, problem.blocks_y))


def column_lists(problem: Problem, chosen: Tensor) -> Lists:
    """Which query blocks chose each key block, of bool [B, H, X, Y]."""
    longest = min(problem.blocks_x, problem.capacity)
    return _lists(problem, chosen.flatten(0, 1).transpose(1, 2), longest)


def _lists(problem: Problem, chosen: Tensor, longest: int) -> Lists:
    chunk = _TOKENS_PER_ITEM // problem.options.block_size
    return list_blocks(chosen, problem.capacity, longest, chunk)


def list_blocks(chosen: Tensor, capacity: int, longest: int, chunk: int) -> Lists:
    """The lists of a matrix of chosen blocks.

    Args:
        chosen: bool [G, L, M], of any strides.
        capacity: an upper bound of the entries of one head.
        longest: an upper bound of the entries of one list.
        chunk: longer lists are cut into pieces of so many entries.
    """
    starts, entries = _list_small(chosen, capacity) or _list_large(chosen, capacity)
    whole = Lists(starts, entries)
    return whole if longest <= chunk else _cut(whole, chunk)


def _list_small(chosen: Tensor, capacity: int) -> tuple[Tensor, Tensor] | None:
    """Starts and entries by one kernel, if one program can hold the blocks of a head."""
    groups, lines, length = chosen.shape
    if max(lines, length) > _SMALL:
        return None
    starts, entries = _empty(chosen, capacity)
    run(
        list_kernel,
        groups,
        as_bytes(chosen),
        starts,
        entries,
        lines,
        length,
        capacity,
        *chosen.stride(),
        LINES=_SMALL,
        WIDTH=_SMALL,
    )
    return starts, entries


def _list_large(chosen: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    groups, lines, length = chosen.shape
    counts, entries = _empty(chosen, capacity)
    programs = groups * triton.cdiv(lines, _LINES)
    flags, shape = as_bytes(chosen), (lines, length)
    tile = {"LINES": _LINES, "WIDTH": _WIDTH}
    run(count_kernel, programs, flags, counts, *shape, *chosen.stride(), **tile)
    starts = counts.cumsum(-1, dtype=torch.int32)
    run(
        compact_kernel, programs, flags, starts, entries, *shape, capacity, *chosen.stride(), **tile
    )
    return starts, entries


def _empty(chosen: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    groups, lines, _ = chosen.shape
    return (
        chosen.new_empty(groups, lines + 1, dtype=torch.int32),
        chosen.new_empty(groups, capacity, dtype=torch.int32),
    )


def _cut(lists: Lists, chunk: int) -> Lists:
    (groups, ends), capacity = lists.starts.shape, lists.entries.shape[1]
    lines = ends - 1
    items = lists.starts.new_empty(groups, lines + capacity // chunk)
    first_items, slots = lists.starts.new_empty(2, groups, lines)
    run(
        cut_kernel,
        groups,
        lists.starts,
        items,
        first_items,
        slots,
        lines,
        items.shape[1],
        LINES=_LINES_CUT,
        CHUNK=chunk,
    )
    # A list of n chunks has more than (n - 1) * chunk entries, and n is 2 or more.
    most = 2 * capacity // chunk
    return Lists(lists.starts, lists.entries, chunk, items, first_items, slots, most)
