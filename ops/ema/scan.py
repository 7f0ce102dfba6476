"""The average by chunks of tokens, with a state between them.

Inside of a chunk outputs are one product with a matrix for each channel; each chunk adds what its
tokens leave to the state that it was given, and its outputs get what of that is left. Tokens are
laid out in tiles of chunks, channel by channel, which stay in the cache of a core.

Shapes: B batch, D channels, N averages, C tokens of a chunk, n chunks of a sequence, m of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from .powers import powers, slopes
from .problem import Problem
from .toeplitz import diagonal_sums, one_sided, toeplitz, two_sided

# Tokens of a chunk: its matrix grows with their square, the states with their number. Few tokens
# don't pay for large matrices.
_CHUNK, _SMALL_CHUNK, _FEW = 32, 16, 1024
_TILE = 2048  # tokens


def average(problem: Problem, *, wants_state: bool) -> tuple[Tensor, Tensor | None]:
    """Output [B, L, D] in the type of x and, if wanted, the state after it [B, D, N]."""
    cut = _Cut.of(problem.x)
    tiles = cut.tiles(problem.tokens())
    table = powers(problem.q, cut.size + 1)
    ways = _Way.all(problem, table, problem.p)
    states: list[Tensor] = []
    if cut.chunks > 1 or wants_state or problem.state is not None:
        states = [_enter(cut, tiles, way, problem.state) for way in ways]
    local = toeplitz(_local(problem, table), cut.size)
    weights = [way.leaving(problem.gamma[way.rows]) for way in ways] if states else []
    out = cut.whole(_outputs(cut, tiles, local, states, weights), problem.x.dtype)
    if not wants_state:
        return out, None
    return out, _after(cut, tiles, ways[0], states[0])


def gradients(
    problem: Problem, grad_out: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [B, L, D] in ``dtype``, and of weights and decays [kD, N].

    Those of a call without a state, of which the weight is all that p and gamma are in.
    """
    cut = _Cut.of(problem.x)
    tiles, grads = cut.tiles(problem.tokens()), cut.tiles(grad_out.to(problem.dtype))
    table = powers(problem.q, cut.size + 1)
    # In units of the tokens, so that p and gamma come in by the weight alone.
    ways = _Way.all(problem, table, None)
    pairs, weights = [], []
    if cut.chunks > 1:
        pairs = [(_enter(cut, tiles, way), _enter(cut, grads, way.turned)) for way in ways]
        weights = [way.turned.leaving(problem.weight[way.rows]) for way in ways]
    local = toeplitz(_local(problem, table), cut.size).transpose(1, 2)
    behind = [seen for _, seen in pairs]
    grad_x = cut.whole(_outputs(cut, grads, local, behind, weights), dtype)

    inside = one_sided(diagonal_sums(_products(tiles, grads)), len(ways))
    grad_weight, grad_q = torch.empty_like(problem.p), torch.empty_like(problem.q)
    for number, way in enumerate(ways):
        by_weight, by_q = way.inside(inside[number])
        if pairs:
            more = way.across(cut, tiles, grads, *pairs[number])
            by_weight, by_q = by_weight + more[0], by_q + more[1]
        grad_weight[way.rows] = by_weight
        grad_q[way.rows] = problem.weight[way.rows] * by_q
    return grad_x, grad_weight, grad_q


@dataclass(frozen=True)
class _Cut:
    """How a batch is cut: ``chunks`` of ``size`` tokens a sequence, the last filled with zeros."""

    batch: int
    length: int
    channels: int
    size: int
    chunks: int
    per_tile: int

    @classmethod
    def of(cls, x: Tensor) -> _Cut:
        batch, length, channels = x.shape
        size = min(_SMALL_CHUNK if batch * length < _FEW else _CHUNK, length)
        chunks = -(-length // size)
        every = batch * chunks
        per_tile = every if x.device.type != "cpu" else max(1, _TILE // size)
        return cls(batch, length, channels, size, chunks, min(per_tile, every))

    @property
    def tail(self) -> int:
        """Tokens of the last chunk."""
        return self.length - (self.chunks - 1) * self.size

    def tiles(self, x: Tensor) -> list[Tensor]:
        """Tokens [B, L, D] as tiles [D, m, C]."""
        x = pad(x, (0, 0, 0, self.chunks * self.size - self.length)) if self.tail < self.size else x
        rows = x.reshape(-1, self.channels)
        return [
            tile.t().contiguous().view(self.channels, -1, self.size)
            for tile in rows.split(self.per_tile * self.size)
        ]

    def whole(self, tiles: Iterator[Tensor], dtype: torch.dtype) -> Tensor:
        """Tiles [D, m, C] as tokens [B, L, D]."""
        parts = []
        for number, tile in enumerate(tiles):
            if not number:
                every = self.batch * self.chunks * self.size
                out = tile.new_empty(every, self.channels)
                parts = list(out.split(self.per_tile * self.size))
            parts[number].copy_(tile.view(self.channels, -1).t())
        out = out.view(self.batch, -1, self.channels)
        if self.tail == self.size:
            return out.to(dtype)
        return out[:, : self.length].to(dtype).contiguous()


@dataclass(frozen=True)
class _Way:
    """A direction: its decays' powers 0 to C [C + 1, D, N], and what a token brings in."""

    rows: slice
    powers: Tensor
    entry: Tensor | None  # [D, N]; None: 1
    is_reversed: bool

    @classmethod
    def all(cls, problem: Problem, table: Tensor, entry: Tensor | None) -> list[_Way]:
        return [
            cls(rows, table[:, rows], None if entry is None else entry[rows], number == 1)
            for number, rows in enumerate(problem.directions)
        ]

    @property
    def turned(self) -> _Way:
        """The other way round with the same decays, as gradients go."""
        return replace(self, is_reversed=not self.is_reversed)

    @property
    def decay(self) -> Tensor:
        """What a chunk leaves of a state, [D, N]."""
        return self.powers[-1]

    def entering(self, size: int) -> Tensor:
        """What each of a chunk's first ``size`` tokens leaves in the state, [D, size, N]."""
        table = self.powers[:size]
        table = table if self.is_reversed else table.flip(0)
        table = table if self.entry is None else table * self.entry
        return table.transpose(0, 1)

    def leaving(self, weight: Tensor) -> Tensor:
        """What each output of a chunk gets of the state before it, [D, N, C]."""
        table = self.powers[1:] * weight
        table = table.flip(0) if self.is_reversed else table
        return table.permute(1, 2, 0)

    def inside(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Of a chunk's kernel [D, C]: gradients of weights, and of decays for a weight of 1."""
        table = self.powers[:-1]
        by_weight, by_q = (
            torch.bmm(grad[:, None], one.transpose(0, 1))[:, 0] for one in (table, slopes(table))
        )
        return by_weight, by_q

    def across(
        self, cut: _Cut, tiles: list[Tensor], grads: list[Tensor], before: Tensor, behind: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same of pairs of tokens in different chunks.

        Args:
            cut: how the batch is cut.
            tiles: of tokens, [D, m, C].
            grads: of the output, likewise.
            before: the state of tokens that each chunk is given, [B n, D, N].
            behind: that of gradients, from the other side.
        """
        by_output = _state_products(cut, before, grads)  # [C, D, N]
        by_token = _state_products(cut, behind, tiles)
        if self.is_reversed:
            by_output, by_token = by_output.flip(0), by_token.flip(0)
        # Output r of a chunk gets q^(r+1) of the state before; token r leaves q^(C-1-r) in the
        # next, and that counts q times more there.
        size = cut.size
        left = torch.arange(size - 1, -1, -1, dtype=before.dtype, device=before.device)
        by_q = (slopes(self.powers)[1:] * by_output).sum(0)
        by_q += (left[:, None, None] * self.powers[:-1].flip(0) * by_token).sum(0)
        both = zip(before.split(cut.per_tile), behind.split(cut.per_tile), strict=True)
        by_q += size * self.decay * sum((one * other).sum(0) for one, other in both)
        return (self.powers[1:] * by_output).sum(0), by_q


def _local(problem: Problem, table: Tensor) -> Tensor:
    """The kernel inside of a chunk, over the distances 1 - C to C - 1: [D, 2C - 1]."""
    kernel = torch.bmm(problem.weight[:, None], table[:-1].permute(1, 2, 0))[:, 0]  # [kD, C]
    return two_sided(tuple(kernel[rows] for rows in problem.directions))


def _enter(cut: _Cut, tiles: list[Tensor], way: _Way, start: Tensor | None = None) -> Tensor:
    """The state that each chunk is given by those before it, [B n, D, N] of tiles [D, m, C]."""
    table = way.entering(cut.size)
    every, averages = cut.batch * cut.chunks, table.shape[-1]
    # What a chunk leaves is written where the next one looks.
    room = table.new_empty(every + 1, cut.channels, averages)
    states = room[1:] if way.is_reversed else room[:-1]
    leaves = room[:-1] if way.is_reversed else room[1:]
    for part, tile in zip(leaves.split(cut.per_tile), tiles, strict=True):
        part.copy_(torch.bmm(tile, table).transpose(0, 1))
    rows = states.view(cut.batch, cut.chunks, cut.channels, averages)
    order = range(cut.chunks)[:: -1 if way.is_reversed else 1]
    if start is None:
        rows[:, order[0]] = 0
    else:
        rows[:, order[0]] = start
    for number, after in pairwise(order):
        rows[:, after].addcmul_(rows[:, number], way.decay)
    return states


def _outputs(
    cut: _Cut, tiles: list[Tensor], local: Tensor, states: list[Tensor], weights: list[Tensor]
) -> Iterator[Tensor]:
    """Outputs [D, m, C] of tiles: by matrices [D, C, C], and by states with weights [D, N, C]."""
    parts = zip(*(state.split(cut.per_tile) for state in states), strict=True)
    for tile, own in zip(tiles, parts if states else [()] * len(tiles), strict=True):
        out = torch.bmm(tile, local)
        for state, weight in zip(own, weights, strict=True):
            out.baddbmm_(state.transpose(0, 1), weight)
        yield out


def _after(cut: _Cut, tiles: list[Tensor], way: _Way, states: Tensor) -> Tensor:
    """The state after the last token, [B, D, N]; the last chunk may be filled with zeros."""
    last = torch.cat(tiles, 1).view(cut.channels, cut.batch, cut.chunks, cut.size)[:, :, -1]
    left = torch.bmm(last[..., : cut.tail], way.entering(cut.tail)).transpose(0, 1)
    before = states.view(cut.batch, cut.chunks, *states.shape[1:])[:, -1]
    return torch.addcmul(left, before, way.powers[cut.tail])


def _products(tiles: list[Tensor], grads: list[Tensor]) -> Tensor:
    """Σ over chunks of token times gradient, [D, C, C]."""
    total = torch.bmm(tiles[0].transpose(1, 2), grads[0])
    for tile, grad in zip(tiles[1:], grads[1:], strict=True):
        total.baddbmm_(tile.transpose(1, 2), grad)
    return total


def _state_products(cut: _Cut, states: Tensor, tiles: list[Tensor]) -> Tensor:
    """Σ over chunks of state times token, [C, D, N]."""
    total = tiles[0].new_zeros(cut.channels, cut.size, states.shape[-1])
    for own, tile in zip(states.split(cut.per_tile), tiles, strict=True):
        total.baddbmm_(tile.transpose(1, 2), own.transpose(0, 1))
    return total.transpose(0, 1)
