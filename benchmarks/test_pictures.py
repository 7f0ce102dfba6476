"""Attention of pictures and clips, in rows and in tiles: time and closeness on smooth latents."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from math import prod

import pytest
import torch
from cases import Case
from closeness import closeness
from interleaved import Step, compare
from pytest_benchmark.fixture import BenchmarkFixture
from settings import Settings, settings_of
from smooth_latents import smooth_field, smooth_inputs
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import mra_plugin
from mra_plugin.adapters.built_attention import build
from mra_plugin.adapters.ordered_attention import attend_arranged, in_tiles
from mra_plugin.ops.token_order import grid_coordinates

QUICK = ((64, 64), (16, 16, 16))
FULL = ((64, 64), (16, 16, 16), (128, 128), (16, 32, 32))
# Of DiT-B, and as in `test_attention.py`.
HEADS, WIDTH = 12, 64
EXACT = "exact"
# The preset, and how tokens are ordered for it.
METHODS: dict[str, dict[str, str | None] | None] = {
    EXACT: None,
    "mra close": {"preset": "close", "token_order": None},
    "mra close in tiles": {"preset": "close", "token_order": "tiles"},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        (what, grid, Case("picture", method, "forward", prod(grid)))
        for grid in (FULL if settings_of(metafunc.config).full else QUICK)
        for what in ("attention", "block")
        # The block is that of a model of pictures.
        if what == "attention" or len(grid) == 2
        for method in METHODS
    ]
    ids = [f"{what}-{'x'.join(map(str, grid))}-{case.id}" for what, grid, case in cases]
    metafunc.parametrize(("what", "grid", "case"), cases, ids=ids)


def attention_alone(method: str, grid: tuple[int, ...], settings: Settings) -> Callable[[], Tensor]:
    """Attends once, [1, heads, tokens, width], the order and the way back included."""
    query, key, value = (
        x.to(settings.device, settings.dtype) for x in smooth_inputs(grid, HEADS, WIDTH)
    )
    if (params := METHODS[method]) is None:
        return partial(scaled_dot_product_attention, query, key, value)
    attention = build("mra", {"preset": params["preset"]})
    if params["token_order"] is None:
        return partial(attention.attend, query, key, value)
    arrangement = in_tiles(grid_coordinates(grid, settings.device))
    return partial(attend_arranged, attention, query, key, value, None, arrangement, 0, None)


def whole_block(method: str, grid: tuple[int, ...], settings: Settings) -> Callable[[], Tensor]:
    """Runs a DiT with one block, random weights, on smooth latents: [1, 1, pixels, channels]."""
    import diffusers

    torch.manual_seed(0)
    height, width = grid
    model: nn.Module = diffusers.DiTTransformer2DModel(
        num_attention_heads=HEADS, attention_head_dim=WIDTH, num_layers=1, sample_size=2 * height
    )
    model = model.to(settings.device, settings.dtype).eval()
    if (params := METHODS[method]) is not None:
        mra_plugin.patch(model, **params)
    latents = smooth_field((2 * height, 2 * width), 4).T.reshape(1, 4, 2 * height, 2 * width)
    latents = latents.to(settings.device, settings.dtype)
    step, label = (torch.zeros(1, dtype=torch.long, device=settings.device) for _ in range(2))

    def run() -> Tensor:
        with torch.no_grad():
            out: Tensor = model(latents, timestep=step, class_labels=label).sample
        return out.flatten(2).mT[:, None]

    return run


RUNS = {"attention": attention_alone, "block": whole_block}


@lru_cache(maxsize=1)
def reference_of(what: str, grid: tuple[int, ...], settings: Settings) -> tuple[Step, Tensor]:
    run = RUNS[what](EXACT, grid, settings)
    return Step(run, settings.device), run()


def test_pictures(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    what: str,
    grid: tuple[int, ...],
    case: Case,
) -> None:
    benchmark.group = f"{case.group}, {what} {' x '.join(map(str, grid))}"
    with runs_or_is_listed(case):
        reference, exact = reference_of(what, grid, settings)
        if case.method == EXACT:
            step, out = reference, exact
        else:
            run = RUNS[what](case.method, grid, settings)
            step, out = Step(run, settings.device), run()
        times = compare(benchmark, step, reference, settings.seconds_per_case)
    error, cosine = closeness(exact, out)
    benchmark.extra_info.update(
        kind=case.kind,
        what=what,
        grid=list(grid),
        method=case.method,
        params=METHODS[case.method] or {},
        tokens=case.tokens,
        direction=case.direction,
        reference=EXACT,
        relative_error=error,
        cosine=cosine,
        **settings.labels,
        **times,
    )
