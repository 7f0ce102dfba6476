"""The limit of MRA attention: the blocks that one would choose if one saw the dense matrix.

A head's weights are F_ij = e^(s_ij) where a pair of blocks is exact and C_ij = e^(ŝ_xy) where it is
coarse. With S the chosen pairs, o the exact output and den_i the sum of a token's weights, the
error of its output is, exactly, the residual r_i = sum over S of F_ij (v_j - o_i) plus sum over the
rest of C_ij (v_j - o_i), divided by den_i.

Which pairs make the squared error least is a problem of combinations, so this is near the limit and
not proven to reach it. The search starts from the pairs with the largest sum of |F - C| (as shares
of the exact den_i), which on real text does better than the largest attention mass or the largest
sum of squares. It then asks of each pair how much it takes off the squared error while all others
stay as they are, takes the best pairs, and so on, and keeps the best choice that it met. That takes
about another tenth of the error off. On tiny matrices, where every choice can be tried, the error
is up to a sixth above the least.

Shapes: N tokens, b tokens per block, X = N / b blocks, D channels; one head.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Choices to look at.
STEPS = 6


class HeadOracle:
    """Sees one head's dense attention, and chooses pairs of blocks for it."""

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, *, block_size: int, scale: float
    ) -> None:
        """Forms the dense matrices.

        Args:
            query: [N, D].
            key: [N, D].
            value: [N, D].
            block_size: b, a divisor of N.
            scale: factor of the scores.
        """
        self._size = block_size
        in_blocks = len(query) // block_size, block_size
        queries, keys, values = (x.float().unflatten(0, in_blocks) for x in (query, key, value))
        coarse = queries.mean(1) @ keys.mean(1).T * scale  # [X, X]
        scores = query.float() @ key.float().T * scale  # [N, N]
        lse = scores.logsumexp(-1, keepdim=True)  # [N, 1]
        coarse = (coarse.repeat_interleave(block_size, 0) - lse).exp()  # [N, X]
        fine = scores.sub_(lse).exp_().unflatten(1, in_blocks)  # [N, X, b]
        self._exact = fine.flatten(1) @ value.float()  # [N, D]
        self._first = self._by_block((fine - coarse[..., None]).abs().sum(-1))  # [X, X]
        # What a pair adds to den_i, if exact and if coarse: [N, X]
        self._fine, self._coarse = fine.sum(-1), coarse * block_size
        # What it adds to r_i: [N, X, D]
        self._fine_residual = torch.einsum("nxb,xbd->nxd", fine, values)
        self._fine_residual -= self._fine[..., None] * self._exact[:, None]
        self._value_means = values.mean(1)
        distances = self._value_means[None] - self._exact[:, None]
        self._gains = self._fine_residual - self._coarse[..., None] * distances
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
        """The output [N, D] of MRA-2 with these pairs exact."""
        residual, total = self._residual(chosen)
        return self._exact + residual / total

    def _residual(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """r_i, [N, D], and den_i as a share of the exact one, [N, 1]."""
        exact = chosen.float().repeat_interleave(self._size, 0)  # [N, X]
        coarse = (1 - exact) * self._coarse
        coarse_sum = coarse.sum(-1, keepdim=True)
        residual = torch.bmm(exact[:, None], self._fine_residual)[:, 0]
        residual += coarse @ self._value_means - coarse_sum * self._exact
        return residual, (exact * self._fine).sum(-1, keepdim=True) + coarse_sum

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

    def _by_block(self, x: Tensor) -> Tensor:
        """Sums [N, X] over the tokens of each block of queries: [X, X]."""
        return x.unflatten(0, (-1, self._size)).sum(1)


def _largest(worth: Tensor, budget: int) -> Tensor:
    chosen = torch.zeros(worth.numel(), dtype=torch.bool, device=worth.device)
    chosen[worth.flatten().topk(budget).indices] = True
    return chosen.view_as(worth)
