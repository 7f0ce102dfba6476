"""Goals and floors of the GPU benchmark, by numbers that can be checked by hand."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS / "gpu")

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def result(method: str, tokens: int, seconds: float, peak: int | None, **more: Any) -> Any:
    return {
        "method": method, "tokens": tokens, "seconds": seconds, "peak_bytes": peak,
        "direction": "training", "shape": [1, 12, tokens, 64], "reference": "cudnn",
        "device": "cuda", "speed_up": 0.0, **more,
    }  # fmt: skip


def test_goals(load: Any) -> None:
    goals = load("goals").goals_of(
        [
            result("flash", 4096, 4.0, 100),
            result("mra 32x8", 4096, 1.0, 120, speed_up=3.0),
            result("mra 64x4", 4096, 2.0, 130, speed_up=2.0),
            result("original", 4096, 9.0, 500),
            result("mra 32x8", 65536, 1.4, None, speed_up=26.0),
            result("mra 32x8", 65536, 0.1, 1, speed_up=99.0, direction="forward"),
            result("mra 32x4", 512, 1.0, 90, speed_up=0.9),
            result("mra 32x8", 4096, 1.0, 120, speed_up=2.5, shape=[1, 12, 4096, 128]),
        ]
    )
    found = {goal.name: (round(goal.measured, 2), goal.met) for goal in goals}
    at = "4096 tokens, 64 channels"
    assert found == {
        f"mra 32x8, {at}, times as fast as cudnn": (3.0, True),
        f"mra 32x8, {at}, times as fast as the original": (9.0, True),
        f"mra 32x8, {at}, peak memory over flash's": (1.2, True),
        f"mra 64x4, {at}, times as fast as cudnn": (2.0, False),
        f"mra 64x4, {at}, times as fast as the original": (4.5, False),
        f"mra 64x4, {at}, peak memory over flash's": (1.3, False),
        "mra 32x8, 65536 tokens, 64 channels, times as fast as cudnn": (26.0, True),
        "mra 32x4, 512 tokens, 64 channels, times as fast as cudnn": (0.9, False),
        "mra 32x8, 65536 tokens, 64 channels, time over that at 4096 tokens": (1.4, False),
        "mra 32x8, 4096 tokens, 128 channels, times as fast as cudnn": (2.5, True),
    }
    assert str(goals[0]).endswith("3.00, at least 2.5: met")
    assert any(str(goal).endswith("1.30, at most 1.25: NOT MET") for goal in goals)


def test_goals_are_those_of_the_gpu_benchmark_on_a_gpu(load: Any) -> None:
    results = [
        result("mra 32x8", 4096, 1.0, 1, device="cpu"),
        result("mra 32x8", 4096, 1.0, 1, direction="forward"),
        result("mra per_row", 4096, 1.0, 1),
        result("mra per_row", 65536, 1.0, 1),
    ]
    assert load("goals").goals_of(results) == []


def test_work_of_stages(load: Any) -> None:
    floors = load("floors")
    forward = floors.work_of_stages((2, 3, 64, 16), 16, 2, 2, "forward")
    tensor, means = 2 * 3 * 64 * 16 * 2, 2 * 3 * 4 * 16 * 4
    assert forward["pooling"].bytes == 3 * tensor + 3 * means
    assert forward["fine"].bytes == 4 * tensor
    # Every query meets 32 keys in two products, each a multiplication and an addition.
    assert forward["fine"].operations == 2 * 2 * (2 * 3 * 64 * 32 * 16)
    assert forward["choosing"].operations == 2 * (2 * 3 * 4 * 4 * 16)
    training = floors.work_of_stages((2, 3, 64, 16), 16, 2, 2, "training")
    assert training["fine"].operations == 7 / 2 * forward["fine"].operations
    assert training["choosing"] == forward["choosing"]
    device = floors.Device(bandwidth=1e12, peak=1e15)
    assert floors.Work(3e9, 5e12).floors(device) == pytest.approx(
        {"floor_bytes_seconds": 3e-3, "floor_operations_seconds": 5e-3}
    )


def test_a_real_run_measures_what_was_asked_for(load: Any) -> None:
    plan = load("plan").REAL
    assert plan.lengths == tuple(2**power for power in range(9, 17))
    assert all(plan.tokens_in_all % tokens == 0 for tokens in plan.lengths)
    labels = {one.label for one in load("contenders").contenders(plan, 4096, 64, None)}
    assert labels == {
        "flash", "cudnn", "efficient", "xformers", "mra 32x8", "mra 64x4",
        "flex_attention 32x8", "flex_attention 64x4", "original",
    }  # fmt: skip
    labels = {one.label for one in load("contenders").contenders(plan, 512, 128, None)}
    assert {"mra 32x4", "mra 64x4"} <= labels
