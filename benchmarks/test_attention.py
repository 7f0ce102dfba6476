"""Attention alone beside PyTorch's own, forward and training, by length.

Inputs are random, and their errors say nothing of real text: closeness is for `test_closeness` to
judge.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

import pytest
import torch
from attention_methods import REFERENCE, Method, attend, attend_with, methods
from cases import Case, Direction
from closeness import closeness
from interleaved import Step, compare
from pytest_benchmark.fixture import BenchmarkFixture
from settings import Settings, settings_of
from torch import Tensor

HEADS, CHANNELS = 12, 64
QUICK = [(512, "both"), (1024, "both"), (2048, "both"), (4096, "both"), (8192, "forward")]
FULL = [(length, "both") for length in (512, 1024, 2048, 4096, 8192, 16384)]
FULL_ON_GPU = [*FULL, (32768, "both"), (65536, "both")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    settings = settings_of(metafunc.config)
    full = FULL if settings.device.type == "cpu" else FULL_ON_GPU
    cases = [
        (method, Case("attention", method.label, direction, tokens))
        for tokens, directions in (full if settings.full else QUICK)
        for direction in ("forward", "training")
        if directions in ("both", direction)
        for method in methods()
    ]
    metafunc.parametrize(("method", "case"), cases, ids=[case.id for _, case in cases])


@dataclass(frozen=True)
class Problem:
    """What every method is given at one length, and what the reference makes of it."""

    inputs: tuple[Tensor, Tensor, Tensor]
    direction: Direction
    cotangent: Tensor
    exact: Tensor
    reference: Step


@lru_cache(maxsize=1)
def problem(tokens: int, direction: Direction, settings: Settings) -> Problem:
    generator = torch.Generator().manual_seed(0)
    shape = (1, HEADS, tokens, CHANNELS)
    *inputs, cotangent = (
        torch.randn(shape, generator=generator).to(settings.device, settings.dtype)
        for _ in range(4)
    )
    if direction == "training":
        for tensor in inputs:
            tensor.requires_grad_()
    query, key, value = inputs
    method = Method(REFERENCE, REFERENCE)
    attention = attend_with(method, (query, key, value), direction)
    with torch.no_grad():
        exact = attention(query, key, value)
    step = step_of(attention, (query, key, value), direction, cotangent)
    return Problem((query, key, value), direction, cotangent, exact, step)


def step_of(
    attention: Callable[..., Tensor],
    inputs: tuple[Tensor, Tensor, Tensor],
    direction: Direction,
    cotangent: Tensor,
) -> Step:
    return Step(lambda: attend(attention, inputs, direction, cotangent), cotangent.device)


def test_attention(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    method: Method,
    case: Case,
) -> None:
    benchmark.group = case.group
    with runs_or_is_listed(case):
        given = problem(case.tokens, case.direction, settings)
        attention = attend_with(method, given.inputs, case.direction)
        with torch.no_grad():
            error, cosine = closeness(given.exact, attention(*given.inputs))
        if method.label == REFERENCE:
            step = given.reference
        else:
            step = step_of(attention, given.inputs, case.direction, given.cotangent)
        found = compare(benchmark, step, given.reference, settings.seconds_per_case)
    benchmark.extra_info.update(
        kind=case.kind,
        method=method.label,
        params=method.all_params(case.tokens),
        tokens=case.tokens,
        direction=case.direction,
        shape=list(given.cotangent.shape),
        reference=REFERENCE,
        relative_error=error,
        cosine=cosine,
        **settings.labels,
        **found,
    )
