"""Attention of pictures and clips, in rows and in tiles: time and closeness.

Alone, in a block of a diffusion transformer, and in vision encoders; latents and pictures are
smooth, and weights random.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from math import prod
from typing import Any

import pytest
import torch
import transformers
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

QUICK = [("attention", (64, 64)), ("block", (64, 64)), ("attention", (16, 16, 16))]
FULL = [
    *QUICK,
    ("attention", (128, 128)),
    ("block", (128, 128)),
    ("attention", (16, 32, 32)),
    *((encoder, (side, side)) for encoder in ("DINOv3", "SigLIP") for side in (32, 48, 64)),
]
# Of DiT-B, of the encoders' base sizes, and as in `test_attention.py`.
HEADS, WIDTH = 12, 64
LAYERS, PATCH = 2, 16
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
        for what, grid in (FULL if settings_of(metafunc.config).full else QUICK)
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


def with_method(model: nn.Module, method: str, settings: Settings) -> nn.Module:
    """A model where it is measured, with a method's attention."""
    model = model.to(settings.device, settings.dtype).eval()
    if (params := METHODS[method]) is not None:
        mra_plugin.patch(model, **params)
    return model


def smooth_picture(channels: int, height: int, width: int, settings: Settings) -> Tensor:
    """[1, channels, height, width]."""
    field = smooth_field((height, width), channels).T.reshape(1, channels, height, width)
    return field.to(settings.device, settings.dtype)


def whole_block(method: str, grid: tuple[int, ...], settings: Settings) -> Callable[[], Tensor]:
    """Runs a DiT with one block, random weights, on smooth latents: [1, 1, pixels, channels]."""
    import diffusers

    torch.manual_seed(0)
    height, width = grid
    model: nn.Module = diffusers.DiTTransformer2DModel(
        num_attention_heads=HEADS, attention_head_dim=WIDTH, num_layers=1, sample_size=2 * height
    )
    model = with_method(model, method, settings)
    latents = smooth_picture(4, 2 * height, 2 * width, settings)
    step, label = (torch.zeros(1, dtype=torch.long, device=settings.device) for _ in range(2))

    def run() -> Tensor:
        with torch.no_grad():
            out: Tensor = model(latents, timestep=step, class_labels=label).sample
        return out.flatten(2).mT[:, None]

    return run


def whole_encoder(
    model_class: type[nn.Module], config_class: type[Any]
) -> Callable[[str, tuple[int, ...], Settings], Callable[[], Tensor]]:
    """Gives runs of some layers of an encoder on a smooth picture: [1, 1, tokens, channels]."""

    def prepared(method: str, grid: tuple[int, ...], settings: Settings) -> Callable[[], Tensor]:
        torch.manual_seed(0)
        height, width = (PATCH * side for side in grid)
        config = config_class(
            hidden_size=HEADS * WIDTH,
            intermediate_size=4 * HEADS * WIDTH,
            num_attention_heads=HEADS,
            num_hidden_layers=LAYERS,
            patch_size=PATCH,
            image_size=height,
            # Random weights as small as training starts with hardly tell keys apart.
            initializer_range=0.1,
        )
        model = with_method(model_class(config), method, settings)
        picture = smooth_picture(3, height, width, settings)

        def run() -> Tensor:
            with torch.no_grad():
                out: Tensor = model(picture).last_hidden_state
            return out[:, None]

        return run

    return prepared


RUNS: dict[str, Callable[[str, tuple[int, ...], Settings], Callable[[], Tensor]]] = {
    "attention": attention_alone,
    "block": whole_block,
    "DINOv3": whole_encoder(transformers.DINOv3ViTModel, transformers.DINOv3ViTConfig),
    "SigLIP": whole_encoder(transformers.SiglipVisionModel, transformers.SiglipVisionConfig),
}


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
