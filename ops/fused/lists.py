"""Which blocks a block chose, or was chosen by, as lists in compressed rows (CSR).

Built without waiting for the device: the lists have room for the largest possible number of
entries, and only their starts say how many there are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .arguments import as_bytes
from .list_kernels import compact_kernel, count_kernel

_LINES, _WIDTH = 32, 64
# Lists no longer than this can't keep a chip waiting at the end, and need no sorting.
_SHORT = 32


class Lists(NamedTuple):
    """One list per line of a matrix of blocks; L lines and G heads.

    Attributes:
        starts: int32 [G, L + 1], where each line's entries begin in its head's.
        entries: int32 [G, capacity].
        order: int64 [G·L], all lines, the longest lists first, so that no long one runs alone
            at the end; None where lists are short or equally long.
    """

    starts: Tensor
    entries: Tensor
    order: Tensor | None


def list_blocks(chosen: Tensor, capacity: int, *, equal: bool = False) -> Lists:
    """The lists of a matrix of chosen blocks.

    Args:
        chosen: bool [G, L, M], of any strides.
        capacity: an upper bound of the entries of one head.
        equal: whether all lists are about equally long.
    """
    groups, lines, length = chosen.shape
    counts = torch.empty(groups, lines + 1, dtype=torch.int32, device=chosen.device)
    entries = torch.empty(groups, capacity, dtype=torch.int32, device=chosen.device)
    settings = {
        "LINES": min(_LINES, max(1, int(triton.next_power_of_2(lines)))),
        "WIDTH": min(_WIDTH, max(16, int(triton.next_power_of_2(length)))),
    }
    grid = (groups * triton.cdiv(lines, settings["LINES"]),)
    flags, sizes = as_bytes(chosen), (lines, length)
    if lines:
        count_kernel[grid](flags, counts, *sizes, *chosen.stride(), **settings)
    starts = counts.cumsum(-1, dtype=torch.int32)
    if chosen.numel():
        compact_kernel[grid](flags, starts, entries, *sizes, capacity, *chosen.stride(), **settings)
    order = None
    if not equal and length > _SHORT:
        order = counts[:, 1:].flatten().argsort(descending=True)
    return Lists(starts, entries, order)
