"""What a forward that looks at its choice keeps for its backward.

Shapes: B batch, H heads, X query blocks, Y key blocks, g salient keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .blocks import block_count


class Kept(NamedTuple):
    """What a backward needs beside output and log-sum-exp.

    Attributes:
        chosen: the pairs that are exact, bool [B, H, X·Y + 1]. The last entry stands for nothing: a
            size that is never 1 is one that tracing puts no guard on, so that an exported program
            takes inputs of a single block as well.
        salient: the keys that every query sees exactly, int64 [B, H, g].
    """

    chosen: Tensor
    salient: Tensor


def empty_kept(query: Tensor, key: Tensor, _value: Tensor, options: Mapping[str, Any]) -> Kept:
    """Room for it, given the options by name."""
    blocks_x, blocks_y = (block_count(x.shape[-2], options["block_size"]) for x in (query, key))
    heads = query.shape[:2]
    return Kept(
        query.new_empty(*heads, blocks_x * blocks_y + 1, dtype=torch.bool),
        query.new_empty(*heads, options["salient_keys"], dtype=torch.int64),
    )
