"""The parts of a call, one by one: pooling, choosing, coarse and fine work."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from cases import Direction
from event_step import EventStep
from torch import Tensor

from mra_plugin.ops.fused.choosing import choose
from mra_plugin.ops.fused.coarse_part import attend_coarsely, shares
from mra_plugin.ops.fused.launches import (
    launch_forward,
    launch_key_value_gradients,
    launch_query_gradient,
    launch_sums,
)
from mra_plugin.ops.fused.pooling import Means, pool_blocks
from mra_plugin.ops.problem import Problem, empty_gradients, empty_output


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

    def pool(self) -> Means:
        """Counts and means of query, key and value."""
        return pool_blocks(self.problem)

    def choose(self) -> Tensor:
        """Coarse scores and the choice."""
        return choose(self.problem, self.means)

    def attend_coarsely(self) -> tuple[Tensor | None, Tensor]:
        """Attention between blocks."""
        return attend_coarsely(self.problem, self.means, self.chosen)

    def attend(self) -> tuple[Tensor, Tensor]:
        """Attention over the chosen blocks, started from the coarse scale's."""
        out, lse = empty_output(self.problem.query, self.problem.value)
        launch_forward(self.problem, self.chosen, self.coarse_out, self.coarse_lse, out, lse)
        return out, lse

    def share(self) -> tuple[Tensor, Tensor, Tensor]:
        """What spreads from the gradients of means."""
        known = (self.problem, self.means, self.chosen, self.coarse_lse)
        return shares(*known, *self.sums()[1:])

    def differentiate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients through the chosen blocks."""
        problem = self.problem
        delta, pulled, _ = self.sums()
        grads = empty_gradients(problem.query, problem.key, problem.value)
        # Any tensors of the right shape stand for what spreads: it is only added.
        known = (problem, self.chosen, self.lse, delta, self.cotangent)
        launch_query_gradient(*known, pulled, grads[0])
        launch_key_value_gradients(*known, (pulled, pulled), grads[1:])
        return grads

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the backward needs of each query and block first."""
        known = (self.problem, self.coarse_lse, self.out, self.lse)
        return launch_sums(*known, self.cotangent, None)


def seconds_of_stages(stages: Stages, direction: Direction, runs: int) -> dict[str, float]:
    """How long each stage takes, in the median of some runs."""
    device = stages.cotangent.device

    def seconds(run: Callable[[], object]) -> float:
        step = EventStep(run, device)
        return statistics.median(step.seconds() for _ in range(runs))

    with torch.no_grad():
        found = {
            "pooling": seconds(stages.pool),
            "choosing": seconds(stages.choose),
            "coarse": seconds(stages.attend_coarsely),
            "fine": seconds(stages.attend),
        }
        if direction == "training":
            found["coarse"] += max(seconds(stages.share) - seconds(stages.sums), 0.0)
            found["fine"] += seconds(stages.differentiate)
    return found
