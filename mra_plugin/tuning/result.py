"""What tuning found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mra_plugin.encoders.repetitions import Repetitions

Metric = Literal["sentence", "token", "ranking"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class Times:
    """Median seconds of the encoder's forward pass, measured in turn with exact attention."""

    seconds: float
    exact_seconds: float

    @property
    def speed_up(self) -> float:
        """How many times as fast as exact attention."""
        return self.exact_seconds / self.seconds


@dataclass(frozen=True)
class AtLength:
    """What a setting does at one length.

    Attributes:
        tokens: the length.
        closeness: to exact attention, on the held-out documents.
        times: of one document.
    """

    tokens: int
    closeness: float
    times: Times


@dataclass(frozen=True)
class Row:
    """A setting, measured at every length.

    Attributes:
        options: all options of MRA attention, as `mra_plugin.patch` takes them.
        lengths: ascending.
    """

    options: dict[str, Any]
    lengths: tuple[AtLength, ...]

    @property
    def closeness(self) -> float:
        """The least of any length."""
        return min(one.closeness for one in self.lengths)

    @property
    def speed_up(self) -> float:
        """The geometric mean over the lengths."""
        return geometric_mean([one.times.speed_up for one in self.lengths])


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        options: the fastest that gain time and reach the target, all written out:
            ``mra_plugin.patch(model, **options)``. None if there are none: exact attention is the
            better choice.
        frontier: what was measured on the held-out documents, the fastest first, without what is
            beaten in both closeness and time.
        target: closeness that was asked for.
        metric: what closeness means.
        documents: how many there are in each half of the text, the search's and the held-out.
        repeated: positions of the model that had to be repeated.
    """

    options: dict[str, Any] | None
    frontier: list[Row]
    target: float
    metric: Metric
    documents: int
    repeated: Repetitions


def geometric_mean(values: list[float]) -> float:
    """Of positive numbers."""
    return math.exp(sum(map(math.log, values)) / len(values))
