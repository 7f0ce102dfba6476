"""Where the time of the compiled attention goes, beside what it has to take at least.

Part of the full set, on a CPU, in float32 and one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial

import pytest
import torch
from cases import Case
from native_stages import TimedLibrary, bandwidth, build_timed, work_of_stages
from pytest_benchmark.fixture import BenchmarkFixture
from roofline import stages_beside
from settings import Settings

from mra_plugin.ops import MRAOptions, mra_attention
from mra_plugin.ops.presets import PRESETS

HEADS, CHANNELS = 12, 64
SCHEMES = {
    "mra": MRAOptions(block_per_row=8),
    "mra close": PRESETS["close"],
}
RUNS = 5

pytestmark = pytest.mark.full_on_cpu


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        Case("stages", method, "forward", tokens) for method in SCHEMES for tokens in (4096, 16384)
    ]
    metafunc.parametrize("case", cases, ids=[case.id for case in cases])


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], TimedLibrary]:
    found: list[TimedLibrary] = []

    def build() -> TimedLibrary:
        if not found:
            found.append(build_timed(tmp_path_factory.mktemp("timed")))
        return found[0]

    return build


@torch.no_grad()
def test_native_stages(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    timed: Callable[[], TimedLibrary],
    case: Case,
) -> None:
    benchmark.group = case.group
    options = SCHEMES[case.method]
    generator = torch.Generator().manual_seed(0)
    shape = (1, HEADS, case.tokens, CHANNELS)
    inputs = [torch.randn(shape, generator=generator) for _ in range(3)]
    all_threads = bandwidth()
    attend = partial(mra_attention, *inputs, **asdict(options), impl="native")
    runs: list[dict[str, float]] = []
    with runs_or_is_listed(case):
        found = timed()
        with found.in_use():
            best = found.device()
            benchmark.pedantic(lambda: runs.append(found.seconds(attend)), rounds=RUNS)
    fastest = min(runs, key=lambda one: sum(one.values()))
    work = work_of_stages(case.tokens, CHANNELS, HEADS, options)
    benchmark.extra_info.update(
        kind=case.kind,
        method=case.method,
        tokens=case.tokens,
        direction=case.direction,
        bandwidth=best.bandwidth,
        bandwidth_all_threads=all_threads,
        peak=best.peak,
        stages=stages_beside(work, best, fastest),
        **settings.labels,
    )
