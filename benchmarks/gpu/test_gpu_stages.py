"""Where the time of MRA attention goes on a GPU, beside what it has to take at least."""

from __future__ import annotations

import pytest
import torch
from cases import Case, Direction
from floors import measure_device, work_of_stages
from plan import Plan, plan_of
from pytest_benchmark.fixture import BenchmarkFixture
from roofline import Device, stages_beside
from settings import Settings
from stages import Stages, seconds_of_stages

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.problem import Problem

pytestmark = pytest.mark.gpu


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("tokens", plan_of(metafunc.config).lengths)


@pytest.fixture(scope="module")
def best(plan: Plan, settings: Settings) -> Device:
    return measure_device(settings.device, settings.dtype, plan.copied_bytes, plan.product_size)


@pytest.mark.parametrize("direction", ["forward", "training"])
def test_gpu_stages(
    benchmark: BenchmarkFixture,
    plan: Plan,
    settings: Settings,
    best: Device,
    tokens: int,
    direction: Direction,
) -> None:
    options = plan.options(plan.blocks[0], tokens)
    shape = (plan.tokens_in_all // tokens, plan.heads, tokens, plan.channels[0])
    generator = torch.Generator(settings.device).manual_seed(0)
    query, key, value, cotangent = (
        torch.randn(shape, generator=generator, device=settings.device, dtype=settings.dtype)
        for _ in range(4)
    )
    scale = shape[-1] ** -0.5
    problem = Problem(query, key, value, None, None, MRAOptions(**options), scale)
    method = f"mra {options['block_size']}x{options['block_per_row']}"
    case = Case("stages", method, direction, tokens)
    benchmark.group = case.group
    stages = Stages(problem, cotangent)
    seconds = benchmark.pedantic(seconds_of_stages, (stages, direction, plan.stage_runs))
    work = work_of_stages(shape, **options, item_bytes=query.itemsize, direction=direction)
    benchmark.extra_info.update(
        kind=case.kind,
        method=case.method,
        tokens=case.tokens,
        direction=case.direction,
        stages=stages_beside(work, best, seconds),
        **settings.labels,
    )
