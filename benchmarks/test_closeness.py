"""Error against cost, on queries, keys and values of a pretrained encoder that reads real text.

Error and cosine are means over heads and layers; the times are those of the first layer, for
window and oracle by way of dense matrices.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache

import pytest
import torch
from approximations import METHODS, approximation, budgets, quick_budgets
from cases import Case
from closeness import closeness
from pytest_benchmark.fixture import BenchmarkFixture
from real_inputs import MODEL, TEXT, real_inputs
from settings import Settings, settings_of
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.encoders.capture import AttentionInputs

LENGTHS = (512, 4096)
# What the quick set takes at the greater length: some budgets, on the first and a middle layer.
QUICK_LAYERS = {4096: (0, 3)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = settings_of(metafunc.config).full
    cases = [
        (Case("closeness", method, "forward", tokens), budget)
        for tokens in LENGTHS
        for method in METHODS
        for budget in (
            budgets(method, tokens)
            if full or tokens not in QUICK_LAYERS
            else quick_budgets(method, tokens)
        )
    ]
    ids = [f"{case.id}-{budget}" for case, budget in cases]
    metafunc.parametrize(("case", "budget"), cases, ids=ids)


@lru_cache(maxsize=1)
def layers_and_outputs(tokens: int, settings: Settings) -> list[tuple[AttentionInputs, Tensor]]:
    """The layers to look at, each with what exact attention makes of its inputs."""
    layers = real_inputs(tokens, settings.device)
    wanted = range(len(layers)) if settings.full else QUICK_LAYERS.get(tokens, range(len(layers)))
    return [
        (one, scaled_dot_product_attention(one.query, one.key, one.value, scale=one.scale))
        for one in (layers[number] for number in wanted)
    ]


def test_closeness(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    case: Case,
    budget: int,
) -> None:
    benchmark.group = case.group
    with runs_or_is_listed(case):
        layers = layers_and_outputs(case.tokens, settings)
        channels = layers[0][0].query.shape[-1]
        one = approximation(case.method, case.tokens, channels, budget)

        def attend(inputs: AttentionInputs) -> Tensor:
            with torch.no_grad():
                return one.attend(inputs.query, inputs.key, inputs.value, scale=inputs.scale)

        first = benchmark.pedantic(attend, args=(layers[0][0],))
        found = [closeness(layers[0][1], first)]
        found += [closeness(exact, attend(inputs)) for inputs, exact in layers[1:]]
    errors, cosines = zip(*found, strict=True)
    benchmark.extra_info.update(
        kind=case.kind,
        method=case.method,
        params=one.params,
        tokens=case.tokens,
        model=MODEL,
        text=TEXT,
        budget=budget,
        budget_unit=one.budget_unit,
        density=one.density,
        relative_cost=one.relative_cost,
        relative_error=statistics.fmean(errors),
        cosine=statistics.fmean(cosines),
        layers=len(layers),
        **{**settings.labels, "dtype": "float32"},
    )
