"""Some batch rows and heads of a call, with the plan of their blocks.

Shapes: B' batch rows and H' heads of the part, G = B'·H', b tokens per block, X query and Y key
blocks, W the wider of D and Dv, g salient keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..blocks import accumulation_dtype, block_count
from ..options import MRAOptions
from ..parts import parts
from ..plan import Plan, plan_blocks
from ..problem import Problem

# Bytes of keys and values, or of coarse scores and their masses, of the heads worked on together:
# bounds these, and the copies that tails and strided inputs need.
_PART_BYTES_CPU = 16 << 20
_PART_BYTES = 2 << 30

Where = tuple[slice, slice]


def cut(problem: Problem) -> Iterator[Where]:
    """Batch rows and heads to take together, part after part."""
    query, key, value = problem.query, problem.key, problem.value
    limit = _PART_BYTES_CPU if query.device.type == "cpu" else _PART_BYTES
    head_bytes = key.element_size() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    cells = block_count(key.shape[-2], problem.options.cell_size)
    score_bytes = accumulation_dtype(key.dtype).itemsize * problem.blocks_x * cells
    return parts(query.shape[0], query.shape[1], limit // max(head_bytes, 2 * score_bytes, 1))


@dataclass(frozen=True)
class Part:
    """What both directions know of a part."""

    query: Tensor  # [B', H', Nq, D]
    key: Tensor  # [B', H', Nk, D]
    value: Tensor  # [B', H', Nk, Dv]
    key_padding_mask: Tensor | None  # bool [B', Nk]
    query_padding_mask: Tensor | None  # bool [B', Nq]
    plan: Plan
    options: MRAOptions
    scale: float

    @classmethod
    def of(
        cls,
        problem: Problem,
        where: Where,
        chosen: Tensor | None = None,
        salient: Tensor | None = None,
    ) -> Part:
        """Takes a part of a call and plans it, but for what is given.

        Args:
            problem: the call.
            where: the part.
            chosen: its exact pairs, bool [B', H', X, Y].
            salient: its salient keys, int64 [B', H', g].
        """
        query, key, value = problem.query[where], problem.key[where], problem.value[where]
        masks = (
            _padding(problem.key_padding_mask, where[0]),
            _padding(problem.query_padding_mask, where[0]),
        )
        options, scale = problem.options, problem.scale
        plan = plan_blocks(query, key, *masks, options, scale, chosen=chosen, salient=salient)
        return cls(query, key, value, *masks, plan, options, scale)

    @property
    def block_size(self) -> int:
        """b, the tokens of a block."""
        return self.options.block_size

    @property
    def width(self) -> int:
        """W, the channels that blocks are filled up to."""
        return max(self.key.shape[-1], self.value.shape[-1])

    @property
    def dtype(self) -> torch.dtype:
        """The accumulation type."""
        return self.plan.scores.dtype


def _padding(mask: Tensor | None, rows: slice) -> Tensor | None:
    """The rows' mask, or None if it masks nothing: callers often pass one that doesn't."""
    return None if mask is None or bool(mask[rows].all()) else mask[rows]
