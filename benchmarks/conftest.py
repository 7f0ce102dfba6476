"""What every benchmark runs under: a fixed number of threads, named in the results."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch


def pytest_configure() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    machine_info["threads"] = torch.get_num_threads()
    machine_info["torch"] = torch.__version__
    machine_info["capability"] = torch.backends.cpu.get_cpu_capability()
    del machine_info["node"]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Below pytest-benchmark's table of times: the ratios, which are what carries over."""
    session = getattr(config, "_benchmarksession", None)
    compared = [one for one in getattr(session, "benchmarks", []) if "speed_up" in one.extra_info]
    if not compared:
        return
    terminalreporter.section("times as fast as exact attention (median, range over the rounds)")
    for one in compared:
        extra = one.extra_info
        line = (
            f"{one.name:50} {extra['speed_up']:6.1f}  "
            f"({extra['speed_up_from']:.1f} to {extra['speed_up_to']:.1f})"
        )
        if "peak_over_inputs" in extra:
            line += f"  peak memory {extra['peak_over_inputs']:.2f} of q, k and v"
        terminalreporter.line(line)
