"""The limit of MRA attention: the blocks that one would choose if one saw the dense matrix.

A head's weights are F_ij = e^(s_ij) where a pair of blocks is exact or key j is salient, and
C_iz = e^(ŝ_xz) for each of the n_z keys of a cell z where it is coarse. With G the salient keys, S
the chosen pairs, o the exact output and den_i the sum of a token's weights, the error of its output
is, exactly, the residual r_i = sum over G and S of F_ij (v_j - o_i) plus sum over the cells of the
rest of n_z C_iz (v̂_z - o_i), divided by den_i.

Which pairs make the squared error least is a problem of combinations, so this is near the limit and
not proven to reach it. The search starts from the pairs with the largest sum of |F - C| (as shares
of the exact den_i), which on real text does better than the largest attention mass or the largest
sum of squares. It then asks of each pair how much it takes off the squared error while all others
stay as they are, takes the best pairs, and so on, and keeps the best choice that it met. That takes
about another tenth of the error off. On tiny matrices, where every choice can be tried, the error
is up to a sixth above the least.

Cells and salient keys are given: which keys would be the best to see exactly is not searched.

Shapes: N tokens, b tokens per block, X = N / b blocks, c keys per cell, Z = N / c cells,
D channels, g salient keys; one head.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Choices to look at.
STEPS = 6


class HeadOracle:
    """Sees one head's dense attention, and chooses pairs of blocks for it."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        block_size: int,
        scale: float,
        cell_size: int | None = None,
        salient: Tensor | None = None,
    ) -> None:
        """Forms the dense matrices.

        Args:
            query: [N, D].
            key: [N, D].
            value: [N, D].
            block_size: b, a divisor of N.
            scale: factor of the scores.
            cell_size: c, a divisor of b; None is b.
            salient: keys that every query sees exactly, int64 [g]; -1 is none.
        """
        self._size = block_size
        self._cells = block_size // (cell_size or block_size)  # of a block
        query, key, value = query.float(), key.float(), value.float()
        averaged = torch.ones(len(key), 1, device=key.device)  # [N, 1]
        if salient is not None:
            averaged[salient[salient >= 0]] = 0
        counts = self._by_cell(averaged)  # [Z, 1]
        key_means, self._value_means = (
            self._by_cell(x * averaged) / counts.clamp(min=1) for x in (key, value)
        )
        queries = query.unflatten(0, (-1, block_size)).mean(1)  # [X, D]
        scores = query @ key.T * scale  # [N, N]
        lse = scores.logsumexp(-1, keepdim=True)  # [N, 1]
        coarse = (queries @ key_means.T * scale).repeat_interleave(block_size, 0)  # [N, Z]
        coarse = coarse.sub_(lse).exp_()
        fine = scores.sub_(lse).exp_()
        self._exact = fine @ value  # [N, D]
        alone = fine * (1 - averaged.T)
        self._salient_sum = alone.sum(-1, keepdim=True)  # [N, 1]
        self._salient_residual = alone @ value - self._salient_sum * self._exact
        fine *= averaged.T
        each = coarse.repeat_interleave(block_size // self._cells, 1) * averaged.T  # [N, N]
        self._first = self._by_block(self._by_key_block((fine - each).abs_()))  # [X, X]
        self._weights = coarse * counts.T  # [N, Z]
        # What a pair adds to den_i, if exact and if coarse: [N, X]
        self._fine = self._by_key_block(fine)
        self._coarse = self._by_key_block(self._weights)
        # What it adds to r_i: [N, X, D]
        self._fine_residual = self._by_value(fine, value)
        self._gains = self._fine_residual - self._by_value(self._weights, self._value_means)
        self._fine_residual -= self._fine[..., None] * self._exact[:, None]
        self._gains -= (self._fine - self._coarse)[..., None] * self._exact[:, None]
        self._squares = self._gains.square().sum(-1)  # [N, X]

    def choose(self, budget: int) -> Tensor:
        """The pairs to make exact, bool [X, X], ``budget`` of them."""
        worth = self._first
        best, least = None, float("inf")
        for step in range(STEPS):
            chosen = _largest(worth, budget)
            residual, total = self._residual(chosen)
            error = (residual / total).square().sum().item()
            if best is None or error < least:
                best, least = chosen, error
            found = self._worth(chosen, residual, total)
            # Half of the old worth keeps pairs that can stand in for each other from swapping.
            worth = found if step == 0 else (worth + found) / 2
        assert best is not None
        return best

    def attend(self, chosen: Tensor) -> Tensor:
        """The output [N, D] of MRA-2 with these pairs and the salient keys exact."""
        residual, total = self._residual(chosen)
        return self._exact + residual / total

    def _residual(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """r_i, [N, D], and den_i as a share of the exact one, [N, 1]."""
        exact = chosen.float().repeat_interleave(self._size, 0)  # [N, X]
        coarse = self._weights * (1 - exact).repeat_interleave(self._cells, 1)  # [N, Z]
        coarse_sum = coarse.sum(-1, keepdim=True)
        residual = torch.bmm(exact[:, None], self._fine_residual)[:, 0] + self._salient_residual
        residual += coarse @ self._value_means - coarse_sum * self._exact
        fine_sum = (exact * self._fine).sum(-1, keepdim=True)
        return residual, fine_sum + self._salient_sum + coarse_sum

    def _worth(self, chosen: Tensor, residual: Tensor, total: Tensor) -> Tensor:
        """How much the squared error falls by each pair's being chosen, [X, X]."""
        along = torch.bmm(self._gains, residual[..., None])[..., 0]  # [N, X]
        square = residual.square().sum(-1, keepdim=True)
        added = self._fine - self._coarse
        exact = chosen.repeat_interleave(self._size, 0)
        with_it = (square + 2 * along + self._squares) / (total + added).square()
        without = (square - 2 * along + self._squares) / (total - added).square()
        now = square / total.square()
        return self._by_block(torch.where(exact, without - now, now - with_it))

    def _by_cell(self, x: Tensor) -> Tensor:
        """Sums [N, D] over the keys of each cell: [Z, D]."""
        return x.unflatten(0, (-1, self._size // self._cells)).sum(1)

    def _by_key_block(self, x: Tensor) -> Tensor:
        """Sums [N, N] or [N, Z] over the keys or cells of each block of keys: [N, X]."""
        return x.unflatten(1, (len(x) // self._size, -1)).sum(-1)

    def _by_value(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weighted sums of each block's values, [N, X, D].

        Args:
            weights: of keys, [N, N], or of cells, [N, Z].
            values: of keys, [N, D], or of cells, [Z, D].
        """
        blocks = len(weights) // self._size
        return torch.einsum(
            "nxb,xbd->nxd", weights.unflatten(1, (blocks, -1)), values.unflatten(0, (blocks, -1))
        )

    def _by_block(self, x: Tensor) -> Tensor:
        """Sums [N, X] over the tokens of each block of queries: [X, X]."""
        return x.unflatten(0, (-1, self._size)).sum(1)


def _largest(worth: Tensor, budget: int) -> Tensor:
    chosen = torch.zeros(worth.numel(), dtype=torch.bool, device=worth.device)
    chosen[worth.flatten().topk(budget).indices] = True
    return chosen.view_as(worth)
