"""Where the time of the compiled attention goes, beside what it has to take at least.

Part of the full set, on a CPU, in float32 and one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict

import pytest
import torch
from cases import Case
from native_stages import TimedLibrary, bandwidth, build_timed, work_of_stages
from settings import STAGES, settings_of

from mra_plugin.ops import MRAOptions, mra_attention
from mra_plugin.ops.presets import PRESETS

HEADS, CHANNELS = 12, 64
SCHEMES = {
    "mra": MRAOptions(block_per_row=8),
    "mra close": PRESETS["close"],
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    settings = settings_of(metafunc.config)
    wanted = settings.full and settings.device.type == "cpu"
    cases = [
        Case("stages", method, "forward", tokens)
        for method in SCHEMES
        for tokens in (4096, 16384)
        if wanted
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
    pytestconfig: pytest.Config,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    timed: Callable[[], TimedLibrary],
    case: Case,
) -> None:
    options = SCHEMES[case.method]
    generator = torch.Generator().manual_seed(0)
    shape = (1, HEADS, case.tokens, CHANNELS)
    inputs = [torch.randn(shape, generator=generator) for _ in range(3)]
    all_threads = bandwidth()
    with runs_or_is_listed(case):
        found = timed()
        with found.in_use():
            best = found.device()
            given = {**asdict(options), "impl": "native"}
            seconds = found.seconds(lambda: mra_attention(*inputs, **given))
    whole = sum(seconds.values())
    work = work_of_stages(case.tokens, CHANNELS, HEADS, options)
    pytestconfig.stash[STAGES] += [
        {
            "tokens": case.tokens,
            "direction": case.direction,
            "method": case.method,
            "channels": CHANNELS,
            "stage": stage,
            "seconds": taken,
            "share": taken / whole,
            "bandwidth": best.bandwidth,
            "bandwidth_all_threads": all_threads,
            "peak": best.peak,
            **work[stage].floors(best),
        }
        for stage, taken in seconds.items()
        if taken
    ]
