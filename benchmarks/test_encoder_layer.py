"""One whole encoder layer beside RoBERTa's with exact attention, forward and training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache

import pytest
from cases import Case, Direction
from encoder_layers import HIDDEN, METHODS, REFERENCE, build_layer
from interleaved import Step, compare
from pytest_benchmark.fixture import BenchmarkFixture
from settings import Settings, settings_of

QUICK = (1024, 2048)
FULL = (512, 1024, 2048, 4096, 8192)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        Case("layer", method, direction, tokens)
        for tokens in (FULL if settings_of(metafunc.config).full else QUICK)
        for direction in ("forward", "training")
        for method in METHODS
    ]
    metafunc.parametrize("case", cases, ids=[case.id for case in cases])


@lru_cache(maxsize=1)
def reference_step(tokens: int, direction: Direction, settings: Settings) -> Step:
    layer = build_layer(REFERENCE, tokens, settings.device, settings.dtype)
    return Step(lambda: layer.run(direction), settings.device)


def test_encoder_layer(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    case: Case,
) -> None:
    benchmark.group = case.group
    with runs_or_is_listed(case):
        layer = build_layer(case.method, case.tokens, settings.device, settings.dtype)
        reference = reference_step(case.tokens, case.direction, settings)
        if case.method == REFERENCE:
            step = reference
        else:
            step = Step(lambda: layer.run(case.direction), settings.device)
        found = compare(benchmark, step, reference, settings.seconds_per_case)
    benchmark.extra_info.update(
        kind=case.kind,
        method=case.method,
        params=layer.params,
        tokens=case.tokens,
        direction=case.direction,
        shape=[1, case.tokens, HIDDEN],
        reference=REFERENCE,
        **settings.labels,
        **found,
    )
