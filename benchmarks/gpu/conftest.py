"""Options of the GPU benchmark, and what it says beside its times."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest_keys import LAUNCHES
from goals import goals_of
from plan import Plan, plan_of, rehearses

# Of the settings of a kernel, the fastest are told.
SHOWN = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mra-plugin")
    group.addoption(
        "--rehearse",
        action="store_true",
        help="run the GPU benchmark at toy sizes; without a GPU, with TRITON_INTERPRET=1",
    )
    group.addoption(
        "--tune",
        action="store_true",
        help="time every kernel with many tile sizes, too; about ten minutes more",
    )
    group.addoption(
        "--original-module",
        metavar="NAME",
        help="a module with the original CUDA extension behind a function attend(query, key, "
        "value, *, block_size, num_blocks): float32 [batch, heads, tokens, channels] each, "
        "differentiable",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LAUNCHES] = []


@pytest.fixture(scope="session")
def plan(pytestconfig: pytest.Config) -> Plan:
    return plan_of(pytestconfig)


@pytest.fixture(scope="session", autouse=True)
def _needs_a_gpu(pytestconfig: pytest.Config) -> None:
    if not rehearses(pytestconfig) and not torch.cuda.is_available():
        pytest.exit(
            "the GPU benchmark needs an NVIDIA GPU; `TRITON_INTERPRET=1 pytest -m gpu "
            "benchmarks/gpu --rehearse` runs it at toy sizes without one",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    if config.stash[LAUNCHES]:
        output_json["launches"] = config.stash[LAUNCHES]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Which goals are met, and which tile sizes are fastest."""
    report_launches(terminalreporter, config.stash[LAUNCHES])
    session = getattr(config, "_benchmarksession", None)
    done = [one.extra_info for one in getattr(session, "benchmarks", [])]
    goals = goals_of([one for one in done if one.get("kind") == "attention"])
    if goals or any(one.get("kind") == "stages" for one in done):
        said = "a rehearsal, which says nothing" if rehearses(config) else "forward and backward"
        terminalreporter.section(f"goals on an H100 ({said})")
        for goal in goals or ["not measured: nothing was trained on a CUDA device"]:
            terminalreporter.line(str(goal))


def report_launches(terminalreporter: Any, found: list[dict[str, Any]]) -> None:
    """The fastest settings of every kernel, beside the ones that it has."""
    if found:
        terminalreporter.section("fastest tile sizes (milliseconds)")
    for key in dict.fromkeys((x["kernel"], x["block_size"], x["channels"]) for x in found):
        group = [x for x in found if (x["kernel"], x["block_size"], x["channels"]) == key]
        present = next(x["seconds"] for x in group if x["launch"] is None)
        terminalreporter.line(
            f"{key[0]}, blocks of {key[1]}, {key[2]} channels: {present * 1e3:.3f} as it is"
        )
        tried = sorted((x for x in group if x["launch"]), key=lambda x: x["seconds"])
        for one in tried[:SHOWN]:
            settings = ", ".join(f"{name} {value}" for name, value in one["launch"].items())
            terminalreporter.line(f"    {one['seconds'] * 1e3:9.3f}  {settings}")
