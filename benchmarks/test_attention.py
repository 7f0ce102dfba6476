"""MRA attention beside exact attention, forward and training, by length.

Each round times exact attention first and MRA right after it, so that whatever else the machine
does meets both; the ratio of the two is in extra_info, with its spread over the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from mra_plugin.measure import peak_memory
from mra_plugin.registry import build_attention

HEADS, CHANNELS = 12, 64
# Tokens, exact blocks per row, rounds.
SIZES = [(1024, 4, 20), (4096, 8, 10), (8192, 8, 7), (16384, 8, 5)]


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def inputs(tokens: int, *, training: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, HEADS, tokens, CHANNELS, generator=generator, requires_grad=training)
        for _ in range(3)
    ]


@pytest.mark.parametrize("selection", ["global", "per_row"])
@pytest.mark.parametrize("direction", ["forward", "training"])
@pytest.mark.parametrize(
    ("tokens", "block_per_row", "rounds"), SIZES, ids=[f"{size[0]}" for size in SIZES]
)
def test_beside_exact(
    benchmark: BenchmarkFixture,
    tokens: int,
    block_per_row: int,
    rounds: int,
    direction: str,
    selection: str,
) -> None:
    training = direction == "training"
    tensors = inputs(tokens, training=training)
    cotangent = torch.randn(1, HEADS, tokens, CHANNELS)
    exact = build_attention("sdpa")
    mra = build_attention("mra", block_per_row=block_per_row, selection=selection)

    def run(attention: Callable[..., Tensor]) -> None:
        out = attention(*tensors)
        if training:
            torch.autograd.grad(out, tensors, cotangent)

    def mra_timed() -> None:
        mra_seconds.append(seconds(lambda: run(mra)))

    def exact_first() -> None:
        exact_seconds.append(seconds(lambda: run(exact)))

    exact_seconds: list[float] = []
    mra_seconds: list[float] = []
    run(mra)
    benchmark.group = f"{direction}, {tokens} tokens"
    benchmark.pedantic(mra_timed, setup=exact_first, rounds=rounds)

    ratios = [e / m for e, m in zip(exact_seconds, mra_seconds, strict=True)]
    benchmark.extra_info.update(
        exact_seconds=statistics.median(exact_seconds),
        speed_up=statistics.median(ratios),
        speed_up_from=min(ratios),
        speed_up_to=max(ratios),
        dtype="float32",
        shape=[1, HEADS, tokens, CHANNELS],
        block_per_row=block_per_row,
        selection=selection,
    )
    if not training:
        with torch.no_grad():
            _, peak = peak_memory(lambda: mra(*tensors), tensors[0].device)
        benchmark.extra_info["peak_bytes"] = peak
        benchmark.extra_info["peak_over_inputs"] = (peak or 0) / sum(x.nbytes for x in tensors)
