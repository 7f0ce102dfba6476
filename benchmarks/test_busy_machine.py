"""Attention while other processes keep the machine busy, beside PyTorch's own in the same state.

Part of the full set, on a CPU: what waits for its slowest thread at every step falls far behind
there, and what shares out its work does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from attention_methods import REFERENCE, block_per_row
from busy_processes import busy_processes
from cases import CannotRunError, Case
from interleaved import Step, compare
from pytest_benchmark.fixture import BenchmarkFixture
from settings import Settings
from torch import Tensor

from mra_plugin.ops import mra_attention
from mra_plugin.registry import build_attention

HEADS, CHANNELS = 12, 64
METHODS = {"mra native": "native", "mra eager": "eager"}
LENGTHS = (1024, 4096, 8192)
NEIGHBOURS = (0, 1, 2)

pytestmark = pytest.mark.full_on_cpu


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        (busy, Case("busy", method, "forward", tokens))
        for busy in NEIGHBOURS
        for tokens in LENGTHS
        for method in METHODS
    ]
    ids = [f"{case.id}-beside-{busy}" for busy, case in cases]
    metafunc.parametrize(("busy", "case"), cases, ids=ids)


@torch.no_grad()
def test_busy_machine(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    busy: int,
    case: Case,
) -> None:
    benchmark.group = f"{case.group}, beside {busy} busy processes"
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, HEADS, case.tokens, CHANNELS, generator=generator) for _ in range(3)
    )
    params = {"block_per_row": block_per_row(case.tokens)}
    exact = build_attention(REFERENCE)
    with runs_or_is_listed(case), busy_processes(busy):
        reference = Step(lambda: exact(query, key, value), settings.device)
        attend = partial(mra_attention, query, key, value, impl=METHODS[case.method], **params)
        step = Step(_or_cannot_run(attend), settings.device)
        found = compare(benchmark, step, reference, settings.seconds_per_case)
    benchmark.extra_info.update(
        kind=case.kind,
        method=case.method,
        params=params,
        tokens=case.tokens,
        direction=case.direction,
        shape=list(query.shape),
        busy_processes=busy,
        reference=REFERENCE,
        **settings.labels,
        **found,
    )


def _or_cannot_run(attend: Callable[[], Tensor]) -> Callable[[], Tensor]:
    try:
        attend()
    except ValueError as error:
        raise CannotRunError(str(error)) from None
    return attend
