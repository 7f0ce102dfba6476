"""MRA attention on a GPU beside every exact attention there, forward and training, by length."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from cases import Case
from cells import Cell, contender_step, problem_of
from closeness import closeness
from contenders import EXACT, Contender, contenders
from interleaved import compare
from plan import Plan, plan_of
from pytest_benchmark.fixture import BenchmarkFixture
from settings import Settings

pytestmark = pytest.mark.gpu


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    plan = plan_of(metafunc.config)
    original = metafunc.config.getoption("--original-module", default=None)
    cases = [
        pytest.param(
            Cell(tokens, channels, direction),
            contender,
            id=f"{tokens}-{channels}-{direction}-{contender.label.replace(' ', '-')}",
        )
        for tokens in plan.lengths
        for channels in plan.channels
        for direction in ("forward", "training")
        for contender in contenders(plan, tokens, channels, original)
    ]
    metafunc.parametrize(("cell", "contender"), cases)


def test_gpu_attention(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    plan: Plan,
    cell: Cell,
    contender: Contender,
) -> None:
    case = Case("attention", contender.label, cell.direction, cell.tokens)
    benchmark.group = f"{case.group}, {cell.channels} channels"
    with runs_or_is_listed(case):
        given = problem_of(cell, plan, settings)
        step, attend = contender_step(contender, given, cell.direction)
        reference = given.exact[given.reference]
        assert not isinstance(reference, str)
        with torch.no_grad():
            error, cosine = closeness(given.output, attend(*given.inputs))
        found = compare(benchmark, step, reference, plan.seconds_per_case)
    dtype = contender.dtype or settings.dtype
    benchmark.extra_info.update(
        kind=case.kind,
        method=contender.label,
        params=contender.params,
        tokens=cell.tokens,
        direction=cell.direction,
        shape=list(given.cotangent.shape),
        reference=given.reference,
        exact=contender.label in EXACT,
        input_bytes=sum(x.numel() for x in given.inputs) * dtype.itemsize,
        relative_error=error,
        cosine=cosine,
        device=str(settings.device),
        dtype=str(dtype).removeprefix("torch."),
        **found,
    )
