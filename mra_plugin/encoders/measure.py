"""Time and memory of encoders that differ in their attention alone, beside their closeness."""

import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from .closeness import cosines, hidden_states

# Per length: at least so many rounds, then more of them while they take less than these seconds.
MIN_ROUNDS, MAX_ROUNDS, SECONDS = 3, 10, 2.0


@dataclass(frozen=True)
class Cost:
    """What a forward pass takes.

    Attributes:
        times: seconds of each timed pass.
        peak_bytes: most memory that PyTorch had allocated at a time beyond weights and inputs;
            None where that can't be measured.
    """

    times: tuple[float, ...]
    peak_bytes: int | None

    @property
    def seconds(self) -> float:
        """The median time."""
        return statistics.median(self.times)

    @property
    def spread(self) -> float:
        """Half the distance between the fastest and the slowest pass, relative to the median."""
        return (max(self.times) - min(self.times)) / 2 / self.seconds


@dataclass(frozen=True)
class Comparison:
    """One attention beside exact attention, at one length."""

    tokens: int
    exact: Cost
    approximate: Cost
    token_cosine: float
    sentence_cosine: float

    @property
    def speed_up(self) -> float:
        """How many times as fast as exact attention it is."""
        return self.exact.seconds / self.approximate.seconds


def compare_encoders(
    exact: nn.Module,
    others: Mapping[str, nn.Module],
    input_ids: Tensor,
    report: Callable[[str], None],
) -> dict[str, Comparison]:
    """Sets encoders beside the exact one, on one sequence.

    The first pass of each gives output and memory, and warms up; then timed rounds of one pass of
    each follow, so that whatever slows the machine down meets all of them.

    Args:
        exact: the encoder with exact attention.
        others: encoders with other attentions, by name.
        input_ids: [1, N], without padding.
        report: is told what is going on.

    Returns:
        A comparison for each of ``others``.
    """
    device, tokens = input_ids.device, input_ids.shape[1]
    mask = torch.ones_like(input_ids)
    labels = ["exact", *others]
    passes = [partial(hidden_states, model, input_ids, mask) for model in (exact, *others.values())]
    outputs: list[Tensor] = []
    peaks: list[int | None] = []
    with torch.inference_mode():
        for label, run in zip(labels, passes, strict=True):
            report(f"{tokens} tokens, {label}: first pass")
            if device.type != "cpu":
                run()  # what compiles or tunes kernels must not count as their memory
            output, peak = peak_memory(run, device)
            outputs.append(output)
            peaks.append(peak)

        def told(number: int, which: int) -> None:
            report(f"{tokens} tokens, {labels[which]}: round {number}")

        times = timed_rounds(passes, device, MIN_ROUNDS, SECONDS, told)

    costs = [Cost(tuple(seconds), peak) for seconds, peak in zip(times, peaks, strict=True)]
    return {
        name: Comparison(tokens, costs[0], cost, *cosines(outputs[0], output, mask))
        for name, cost, output in zip(others, costs[1:], outputs[1:], strict=True)
    }


def timed_rounds(
    passes: Sequence[Callable[[], object]],
    device: torch.device,
    least: int,
    enough: float,
    before: Callable[[int, int], None] = lambda number, which: None,
) -> list[list[float]]:
    """Times passes in turn, so that whatever slows the machine down meets all of them.

    Args:
        passes: run before, as the first time takes longer.
        device: where they run.
        least: rounds, at the least.
        enough: seconds after which there are no more than these.
        before: is told which round comes, from 1 on, and which pass, from 0 on.

    Returns:
        For each pass the seconds of its rounds, up to `MAX_ROUNDS`.
    """
    times: list[list[float]] = [[] for _ in passes]
    started = time.perf_counter()
    for number in range(1, MAX_ROUNDS + 1):
        for which, (run, seconds) in enumerate(zip(passes, times, strict=True)):
            before(number, which)
            seconds.append(seconds_of(run, device))
        if number >= least and time.perf_counter() - started > enough:
            break
    return times


def peak_memory(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, int | None]:
    """Runs something and finds the most memory that PyTorch allocated for it at a time.

    Args:
        run: what to run.
        device: where it runs.

    Returns:
        (its result, bytes or None): from the allocator's own record on CUDA, from each allocation
        and release that PyTorch's profiler sees on a CPU, None elsewhere.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        return result, torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return run(), None
    result, changes = memory_changes(run)
    return result, max(itertools.accumulate(changes), default=0)


def memory_changes(run: Callable[[], Tensor]) -> tuple[Tensor, list[int]]:
    """Runs something on a CPU, and gives its result and the bytes that PyTorch took for it.

    Those that it gave back are below 0; in the order of time. Together they are what is still held,
    the result included.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return result, [change for _, change in changes]


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Runs something, and tells how many seconds pass until all that it starts on a device ends."""
    wait_for(device)
    started = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - started


def wait_for(device: torch.device) -> None:
    """Waits until a device has nothing left to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
