"""What every benchmark runs under, and what the results say beside the times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from cases import CannotRunError, Case, NotRun
from settings import THREADS, Settings, settings_of

from mra_plugin.environment import installed_versions

NOT_RUN = pytest.StashKey[list[NotRun]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mra-plugin")
    group.addoption("--full", action="store_true", help="measure every length and budget")
    group.addoption("--device", help="cpu or cuda; by default cuda where there is one")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(THREADS)
    settings_of(config)  # refuses a wrong --device before anything else happens
    config.stash[NOT_RUN] = []
    config.addinivalue_line("markers", "full_on_cpu: a part of the full set, on a CPU alone")
    # The summary lists what could not run.
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = settings_of(config)
    if wanted.full and wanted.device.type == "cpu":
        return
    left_out = [item for item in items if item.get_closest_marker("full_on_cpu")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config: pytest.Config) -> str:
    wanted = settings_of(config)
    kind = "full set" if wanted.full else "quick set"
    threads = torch.get_num_threads()
    return f"{kind} on {wanted.device}, {threads} threads, torch {torch.__version__}"


@pytest.fixture(scope="session")
def settings(pytestconfig: pytest.Config) -> Settings:
    return settings_of(pytestconfig)


@pytest.fixture
def runs_or_is_listed(
    pytestconfig: pytest.Config,
) -> Callable[[Case], AbstractContextManager[None]]:
    """Around a case: if it can't run, it counts as skipped, and its reason goes to the results."""

    @contextmanager
    def guard(case: Case) -> Iterator[None]:
        try:
            yield
        except (CannotRunError, torch.OutOfMemoryError) as error:
            reason = str(error) if isinstance(error, CannotRunError) else "out of memory"
            pytestconfig.stash[NOT_RUN].append(NotRun(case, reason))
            pytest.skip(reason)

    return guard


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    device = settings_of(config).device
    machine_info["threads"] = torch.get_num_threads()
    machine_info["torch"] = torch.__version__
    machine_info["capability"] = _capability(device)
    machine_info["device"] = _device_name(device, machine_info)
    machine_info["versions"] = installed_versions()
    machine_info.pop("node", None)


def _capability(device: torch.device) -> str | None:
    if device.type == "cuda":
        return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    return torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else None


def _device_name(device: torch.device, machine_info: dict[str, Any]) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return machine_info.get("cpu", {}).get("brand_raw") or machine_info["machine"]


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["not_run"] = [one.as_json() for one in config.stash[NOT_RUN]]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Below pytest-benchmark's table of times: ratios and errors, and what is missing."""
    session = getattr(config, "_benchmarksession", None)
    done = [one for one in getattr(session, "benchmarks", []) if "method" in one.extra_info]
    for title, line in _LINES.items():
        found = [one for one in done if title in one.extra_info]
        if found:
            terminalreporter.section(_TITLES[title])
            for one in found:
                terminalreporter.line(line(one))
    _list_stages(terminalreporter, [one.extra_info for one in done if "stages" in one.extra_info])
    _list_not_run(terminalreporter, config.stash[NOT_RUN])


_TITLES = {
    "speed_up": "times as fast as the reference (median, range over the rounds)",
    "budget": "how close to exact attention",
    "mrr": "how well documents are found (MRR, and exact attention's)",
}


def _speed_line(one: Any) -> str:
    extra = one.extra_info
    peak = extra["peak_bytes"]
    memory = "" if peak is None else f"  peak memory {peak / 1e6:.0f} MB"
    error = f"  relative error {extra['relative_error']:.3f}" if "relative_error" in extra else ""
    return (
        f"{one.group:32} {extra['method']:20} {extra['speed_up']:6.2f}  "
        f"({extra['speed_up_from']:.2f} to {extra['speed_up_to']:.2f}) {memory}{error}"
    )


def _closeness_line(one: Any) -> str:
    extra = one.extra_info
    return (
        f"{one.group:24} {extra['method']:12} {extra['budget']:4} {extra['budget_unit']:15} "
        f"cost {extra['relative_cost']:6.3f}  relative error {extra['relative_error']:.3f}  "
        f"cosine {extra['cosine']:.4f}"
    )


def _ranking_line(one: Any) -> str:
    extra = one.extra_info
    return (
        f"{one.group:44} {extra['method']:12} {extra['mrr']:.3f}  ({extra['reference_mrr']:.3f})  "
        f"first {extra['first_hits']} of {extra['documents']}  overlap {extra['overlap']:.2f}  "
        f"cosine {extra['vector_cosine']:.4f}"
    )


# By the entry of extra_info that calls for it.
_LINES = {"speed_up": _speed_line, "budget": _closeness_line, "mrr": _ranking_line}


def _list_stages(terminalreporter: Any, calls: list[dict[str, Any]]) -> None:
    if calls:
        terminalreporter.section("where the time goes (milliseconds; floors of bytes, operations)")
    for call in calls:
        for one in call["stages"]:
            terminalreporter.line(
                f"{call['direction']:9} {call['tokens']:6} tokens  {call['method']:12} "
                f"{one['stage']:9} {one['seconds'] * 1e3:9.3f}  {one['share']:4.0%}  "
                f"{one['floor_bytes_seconds'] * 1e3:9.3f} "
                f"{one['floor_operations_seconds'] * 1e3:9.3f}"
            )


def _list_not_run(terminalreporter: Any, missing: list[NotRun]) -> None:
    if not missing:
        return
    terminalreporter.section("could not run")
    places = defaultdict(list)
    for one in missing:
        case = one.case
        places[case.kind, case.method, case.direction, one.reason].append(str(case.tokens))
    for (kind, method, direction, reason), tokens in places.items():
        terminalreporter.line(f"{method} ({kind}, {direction}, {', '.join(tokens)}): {reason}")
