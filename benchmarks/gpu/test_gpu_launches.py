"""Which tile sizes and warps each kernel is fastest with; only with ``--tune``."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from conftest_keys import LAUNCHES
from event_step import KernelStep
from plan import Plan, plan_of, rehearses
from settings import Settings
from stages import Stages
from torch import Tensor
from triton.errors import TritonError

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.problem import Problem
from mra_plugin.ops.triton import choosing, fine_backward, fine_forward
from mra_plugin.ops.triton import coarse as coarse_part
from mra_plugin.ops.triton.tuning import Launch

pytestmark = pytest.mark.gpu

Run = Callable[[Stages], object]
# What each kernel is launched by, and where its launcher looks that up.
KERNELS: dict[str, tuple[Run, ModuleType, str]] = {
    "forward": (Stages.attend, fine_forward, "forward_launch"),
    "query gradient": (Stages.differentiate_queries, fine_backward, "backward_launch"),
    "key and value gradients": (Stages.differentiate_keys, fine_backward, "backward_launch"),
    "ranks": (Stages.rank, choosing, "coarse_launch"),
    "coarse forward": (Stages.attend_coarsely, coarse_part, "coarse_launch"),
    "coarse gradients": (Stages.share, coarse_part, "coarse_launch"),
}
# A product in another order differs by so much.
TOLERANCE = 2e-2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    plan, tuned = plan_of(metafunc.config), metafunc.config.getoption("--tune")
    metafunc.parametrize("kernel", KERNELS if tuned else [])
    metafunc.parametrize("block", plan.blocks, ids=lambda block: f"{block[0]}x{block[1]}")
    metafunc.parametrize("channels", plan.channels)


def candidates(kernel: str, block_size: int, rehearsed: bool) -> Iterator[Launch]:
    """Settings to try; rows of a fine kernel are a part of its block."""
    coarse = kernel in ("ranks", "coarse forward", "coarse gradients")
    most = 64 if coarse else min(block_size, 128)
    rows = [size for size in (16, 32, 64, 128) if most // 2 <= size <= most]
    if rehearsed:
        rows = rows[:1]
    steps, warps, stages = ((16, 32), (4,), (2,)) if rehearsed else (
        (32, 64, 128), (2, 4, 8), (2, 3)
    )  # fmt: skip
    return itertools.starmap(Launch, itertools.product(rows, steps, warps, stages))


def results(found: object) -> list[Tensor]:
    return [x for x in (found if isinstance(found, tuple) else (found,)) if x is not None]


def test_gpu_launches(
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    plan: Plan,
    settings: Settings,
    kernel: str,
    block: tuple[int, int],
    channels: int,
) -> None:
    tokens = plan.tuned_at
    shape = (plan.tokens_in_all // tokens, plan.heads, tokens, channels)
    generator = torch.Generator(settings.device).manual_seed(0)
    query, key, value, cotangent = (
        torch.randn(shape, generator=generator, device=settings.device, dtype=settings.dtype)
        for _ in range(4)
    )
    options = MRAOptions(block_size=block[0], block_per_row=block[1])
    stages = Stages(Problem(query, key, value, None, None, options, channels**-0.5), cotangent)
    run, module, name = KERNELS[kernel]
    expected = [x.double() for x in results(run(stages))]

    def seconds() -> float:
        step = KernelStep(lambda: run(stages), settings.device)
        return statistics.median(step.seconds() for _ in range(plan.stage_runs))

    times: dict[Launch | None, float] = {None: seconds()}
    for launch in candidates(kernel, block[0], rehearses(pytestconfig)):
        monkeypatch.setattr(module, name, lambda *_, launch=launch: launch)
        try:
            found = results(run(stages))
        except TritonError:
            # More shared memory or registers than there are.
            continue
        for actual, wanted in zip(found, expected, strict=True):
            finite = wanted.isfinite()
            difference = (actual.double() - wanted)[finite].norm()
            assert difference <= TOLERANCE * wanted[finite].norm(), launch
        times[launch] = seconds()
    pytestconfig.stash[LAUNCHES] += [
        {
            "kernel": kernel,
            "block_size": block[0],
            "channels": channels,
            "tokens": tokens,
            "launch": None if launch is None else launch._asdict(),
            "seconds": taken,
        }
        for launch, taken in times.items()
    ]
