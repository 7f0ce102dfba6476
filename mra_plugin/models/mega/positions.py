"""Biases on attention's scores that know how far apart two tokens are.

A bias depends on the distance alone: `between` gives it for tokens in a row, `at` for any
positions. The modules hold the weights, and give a bias out when they are called.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mra_plugin.ops.checks import outside_autocast

BASE = 10000.0


class SimpleBias(NamedTuple):
    """A number for each distance.

    Attributes:
        table: the numbers, that of distance 0 in row ``middle - 1``.
        middle: distances reach ``middle - 1`` to both sides.
    """

    table: Tensor
    middle: int

    def between(self, queries: int, keys: int, offset: int = 0) -> Tensor:
        """The bias [queries, keys] of query i at ``offset + i`` on key j at j.

        Distances that the table has no row for, which no query may see, get 0.
        """
        first = self.middle - offset - queries
        last = first + queries + keys - 1
        end = 2 * self.middle - 1
        table = self.table[max(first, 0) : max(min(last, end), 0)]
        table = functional.pad(table, (max(-first, 0), max(last - end, 0)))
        return table.unfold(0, keys, 1).flip(0)

    def at(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """The bias [..., Nq, Nk] for positions int [..., Nq] and [..., Nk]."""
        distance = key_positions[..., None, :] - query_positions[..., None]
        return self.table[(distance + self.middle - 1).clamp(0, 2 * self.middle - 2)]


class RotaryBias(NamedTuple):
    """The product of two vectors that are turned by the tokens' positions.

    The turned vectors are features: appended to query and key, the bias is part of their product.

    Attributes:
        of_queries: the queries' vector, [1, S].
        of_keys: the keys' vector, [1, S].
    """

    of_queries: Tensor
    of_keys: Tensor

    def features(self, queries: int, keys: int, offset: int = 0) -> tuple[Tensor, Tensor]:
        """The turned vectors [queries, S] and [keys, S] whose products are `between`."""
        # Only differences count, and small angles are more precise.
        start = -((offset + queries) // 2)
        device = self.of_queries.device
        query_positions = torch.arange(queries, device=device) + (start + offset)
        key_positions = torch.arange(keys, device=device) + start
        return _turned(self.of_queries, query_positions), _turned(self.of_keys, key_positions)

    def between(self, queries: int, keys: int, offset: int = 0) -> Tensor:
        """The bias [queries, keys] of query i at ``offset + i`` on key j at j."""
        query, key = self.features(queries, keys, offset)
        with outside_autocast(query):
            return query @ key.mT

    def at(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """The bias [..., Nq, Nk] for positions int [..., Nq] and [..., Nk]."""
        query, key = _turned(self.of_queries, query_positions), _turned(self.of_keys, key_positions)
        with outside_autocast(query):
            return query @ key.mT


Bias = SimpleBias | RotaryBias


class MegaSimpleRelativePositionalBias(nn.Module):
    """Holds the table of a `SimpleBias`."""

    def __init__(self, max_positions: int, middle: int) -> None:
        """Makes a table of ``2 max_positions - 1`` rows; see `SimpleBias` for the middle."""
        super().__init__()
        self.middle = middle
        self.rel_pos_bias = nn.Parameter(torch.empty(2 * max_positions - 1))

    def forward(self) -> SimpleBias:
        """The bias."""
        return SimpleBias(self.rel_pos_bias, self.middle)

    def fill_up(self, rows: int) -> None:
        """Fills the table up with zeros behind its last row."""
        table = functional.pad(self.rel_pos_bias.detach(), (0, rows - len(self.rel_pos_bias)))
        self.rel_pos_bias = nn.Parameter(table, self.rel_pos_bias.requires_grad)


class MegaRotaryRelativePositionalBias(nn.Module):
    """Holds the vectors of a `RotaryBias`."""

    _float_tensor: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(1, channels))
        self.b_param = nn.Parameter(torch.empty(1, channels))
        # Holds nothing, but checkpoints hold it.
        self.register_buffer("_float_tensor", torch.zeros(1))

    def forward(self) -> RotaryBias:
        """The bias."""
        return RotaryBias(self.alpha, self.b_param)


def _turned(vector: Tensor, positions: Tensor) -> Tensor:
    """[1, S] turned by positions int [...], to [..., S] in single precision at least."""
    half = vector.shape[-1] // 2
    # Not every device has double precision.
    exact = torch.float32 if vector.device.type == "mps" else torch.float64
    exponents = torch.arange(half, device=vector.device, dtype=exact) / -half
    angles = positions[..., None].to(exact) * BASE**exponents
    wide = torch.promote_types(vector.dtype, torch.float32)
    cos, sin = angles.cos().to(wide), angles.sin().to(wide)
    first, second = vector[0].to(wide).chunk(2)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
