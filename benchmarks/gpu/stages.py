"""The parts of a call, one by one: pooling, choosing, coarse and fine work."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from cases import Direction
from event_step import KernelStep
from torch import Tensor

from mra_plugin.ops.problem import Problem, empty_output
from mra_plugin.ops.triton.choosing import choice_parts, choose, rank_pairs
from mra_plugin.ops.triton.coarse import attend_coarsely, shares
from mra_plugin.ops.triton.fine_backward import (
    launch_key_value_gradients,
    launch_query_gradient,
    launch_sums,
)
from mra_plugin.ops.triton.fine_forward import launch_forward
from mra_plugin.ops.triton.kept import MeansWithValues
from mra_plugin.ops.triton.pooling import pool_blocks
from mra_plugin.ops.triton.salient import salient_gradients


class Stages:
    """One call of the kernels, taken apart.

    Each part is given what the parts before it found. Together they do what a call does, but for
    the operators around it; lists of blocks count as fine work, and the gradients of means and
    what spreads from them as coarse work.
    """

    def __init__(self, problem: Problem, cotangent: Tensor) -> None:
        """Runs both directions once."""
        self.problem, self.cotangent = problem, cotangent
        self.means = self.pool()
        self.chosen = self.choose()
        self.coarse_out, self.coarse_lse = self.attend_coarsely()
        self.out, self.lse = self.attend()
        self.delta, self.pulled, self.pulled_delta = self.sums()

    def pool(self) -> MeansWithValues:
        """Counts and means of query, key and value."""
        return pool_blocks(self.problem)

    def choose(self) -> Tensor:
        """Coarse scores and the choice."""
        return choose(self.problem, self.means)

    def rank(self) -> tuple[Tensor, ...]:
        """The first half of choosing: how far each pair falls behind its row's best."""
        problem, means = self.problem, self.means
        ranks = (rank_pairs(problem, means, part) for part in choice_parts(problem))
        return tuple(x.view(torch.float32) for x in ranks)

    def attend_coarsely(self) -> tuple[Tensor | None, Tensor]:
        """Attention between blocks."""
        return attend_coarsely(self.problem, self.means, self.chosen)

    def attend(self) -> tuple[Tensor, Tensor]:
        """Attention over the chosen blocks, started from the coarse scale's."""
        out, lse = empty_output(self.problem.query, self.problem.value)
        known = (self.problem, self.chosen, self.means.salient)
        launch_forward(*known, self.coarse_out, self.coarse_lse, out, lse)
        return out, lse

    def share(self) -> tuple[Tensor, Tensor, Tensor]:
        """What spreads from the gradients of means."""
        known = (self.problem, self.means, self.chosen, self.coarse_lse)
        return shares(*known, self.pulled, self.pulled_delta)

    def differentiate(self) -> None:
        """Gradients through the chosen blocks."""
        self.sums()
        self.differentiate_queries()
        self.differentiate_keys()

    def differentiate_queries(self) -> Tensor:
        """Those of queries."""
        grad = torch.empty_like(self.problem.query)
        # Any tensor of the right shape stands for what spreads: it is only added.
        launch_query_gradient(*self._known(), self.pulled, grad)
        return grad

    def differentiate_keys(self) -> tuple[Tensor, Tensor]:
        """Those of keys and values."""
        grads = torch.empty_like(self.problem.key), torch.empty_like(self.problem.value)
        known = self._known()
        launch_key_value_gradients(
            *known, (self.pulled, self.pulled), salient_gradients(*known), grads
        )
        return grads

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the backward needs of each query and block first."""
        known = (self.problem, self.coarse_lse, self.out, self.lse)
        return launch_sums(*known, self.cotangent, None)

    def _known(self) -> tuple[Problem, Tensor, Tensor, Tensor, Tensor, Tensor]:
        found = (self.lse, self.delta, self.cotangent)
        return self.problem, self.chosen, self.means.salient, *found


def seconds_of_stages(stages: Stages, direction: Direction, runs: int) -> dict[str, float]:
    """How long each stage takes, in the median of some runs."""
    device = stages.cotangent.device

    def seconds(run: Callable[[], object]) -> float:
        step = KernelStep(run, device)
        return statistics.median(step.seconds() for _ in range(runs))

    with torch.no_grad():
        found = {
            "pooling": seconds(stages.pool),
            "choosing": seconds(stages.choose),
            "coarse": seconds(stages.attend_coarsely),
            "fine": seconds(stages.attend),
        }
        if direction == "training":
            found["coarse"] += seconds(stages.share)
            found["fine"] += seconds(stages.differentiate)
    return found
