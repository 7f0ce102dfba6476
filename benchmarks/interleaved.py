"""Times a method and its reference in turn, so that what else the machine does meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from mra_plugin.encoders.measure import peak_memory, seconds_of, wait_for

LEAST_ROUNDS, MOST_ROUNDS = 3, 20


class Step:
    """A step to be timed, run twice: to warm up, and for its memory.

    Attributes:
        peak_bytes: the most that PyTorch allocated for one run at a time; None where that can't
            be measured.
        about: seconds that one run takes, roughly.
    """

    def __init__(self, run: Callable[[], Tensor], device: torch.device) -> None:
        """Runs ``run`` twice on ``device``, where all that it starts has to end."""
        self._run = run
        self._device = device
        first = self.seconds()
        started = time.perf_counter()
        _, self.peak_bytes = peak_memory(run, device)
        wait_for(device)
        # The first may have compiled something, and the second may have started the profiler.
        self.about = min(first, time.perf_counter() - started)

    def seconds(self) -> float:
        """Runs once more, and tells how long it took."""
        return seconds_of(self._run, self._device)


def compare(
    benchmark: BenchmarkFixture, own: Step, reference: Step, enough: float
) -> dict[str, Any]:
    """Benchmarks a step in rounds of the reference first and the step right after it.

    Args:
        benchmark: the fixture of the test; it sees the step's times alone.
        own: the step.
        reference: what it is compared with; the step itself if that is the reference.
        enough: seconds after which no more than the least number of rounds are needed.

    Returns:
        The entries of extra_info for time and memory.
    """
    own_seconds: list[float] = []
    reference_seconds: list[float] = []
    alone = own is reference

    def reference_first() -> None:
        if not alone:
            reference_seconds.append(reference.seconds())

    def then_own() -> None:
        own_seconds.append(own.seconds())

    about = own.about if alone else own.about + reference.about
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(enough / about)))
    benchmark.pedantic(then_own, setup=reference_first, rounds=rounds)
    return {
        **ratios(own_seconds, own_seconds if alone else reference_seconds),
        "peak_bytes": own.peak_bytes,
        "reference_peak_bytes": reference.peak_bytes,
    }


def ratios(own: list[float], reference: list[float]) -> dict[str, float]:
    """Medians, and how many times as fast as the reference: median, least and greatest.

    Args:
        own: seconds of each round.
        reference: seconds of the reference in the same rounds.
    """
    speed_ups = [r / o for o, r in zip(own, reference, strict=True)]
    return {
        "seconds": statistics.median(own),
        "reference_seconds": statistics.median(reference),
        "speed_up": statistics.median(speed_ups),
        "speed_up_from": min(speed_ups),
        "speed_up_to": max(speed_ups),
    }
