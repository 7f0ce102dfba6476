"""Which blocks a block chose, or was chosen by, as lists in compressed rows (CSR).

Built without waiting for the device: the lists have room for the largest possible number of
entries, and only their starts say how many there are.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .list_kernel import compact_kernel

_WIDTH = 256


class Lists(NamedTuple):
    """One list per line of a matrix of blocks; L lines and G heads.

    Attributes:
        starts: int32 [G, L + 1], where each line's entries begin in its head's.
        entries: int32 [G, capacity].
        order: int32 [G·L], all lines, the longest lists first, so that no long one runs alone
            at the end.
    """

    starts: Tensor
    entries: Tensor
    order: Tensor


def list_blocks(chosen: Tensor, capacity: int) -> Lists:
    """The lists of a matrix of chosen blocks.

    Args:
        chosen: bool [G, L, M], of any strides.
        capacity: an upper bound of the entries of one head.
    """
    groups, lines, length = chosen.shape
    counts = chosen.sum(-1, dtype=torch.int32)  # [G, L]
    starts = torch.nn.functional.pad(counts.cumsum(-1, dtype=torch.int32), (1, 0))
    order = counts.flatten().argsort(descending=True, stable=True).to(torch.int32)
    entries = torch.empty(groups, capacity, dtype=torch.int32, device=chosen.device)
    if chosen.numel():
        compact_kernel[(groups * lines,)](
            chosen.view(torch.int8),
            starts,
            entries,
            lines,
            length,
            capacity,
            *chosen.stride(),
            WIDTH=min(_WIDTH, max(16, triton.next_power_of_2(length))),
        )
    return Lists(starts, entries, order)
