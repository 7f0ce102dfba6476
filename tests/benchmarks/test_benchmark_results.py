"""A run of a few benchmarks, from the command line to the result file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# The fewest cases with everything: fast and slow ends of each kind, and what can't run.
WANTED = (
    "(512-training and (sdpa or values_alone or broken or mra-sparse or flex))"
    " or (closeness and 512 and (oracle-4 or mra-by-mass-4))"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What the run printed, and the result file."""
    path = tmp_path_factory.mktemp("benchmarks") / "results.json"
    command = [sys.executable, "-m", "pytest", "benchmarks", "--ignore=benchmarks/gpu"]
    command += ["-k", WANTED, "-p", "helpers.registered_attention", "-p", "no:cacheprovider"]
    command += ["--device=cpu", f"--benchmark-json={path}"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(path.read_text())


def entries(run: tuple[str, dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    extra = [one["extra_info"] for one in run[1]["benchmarks"]]
    return {one["method"]: one for one in extra if one["kind"] == kind}


def test_every_backend_of_the_registry_is_measured(run: tuple[str, dict[str, Any]]) -> None:
    found = entries(run, "attention")
    assert set(found) == {"sdpa", "mra sparse", "mra sparse per_row", "values_alone"}
    for one in found.values():
        assert one["direction"] == "training"
        assert one["tokens"] == 512
        assert one["shape"] == [1, 12, 512, 64]
        assert one["reference"] == "sdpa"
        assert (one["dtype"], one["device"]) == ("float32", "cpu")
        assert 0 < one["speed_up_from"] <= one["speed_up"] <= one["speed_up_to"]
        assert one["seconds"] > 0 < one["reference_seconds"]
        assert one["peak_bytes"] > 0 < one["reference_peak_bytes"]
    assert found["mra sparse per_row"]["params"] == {
        "block_per_row": 4,
        "approx_mode": "sparse",
        "selection": "per_row",
    }
    assert found["sdpa"]["relative_error"] == 0
    assert found["sdpa"]["speed_up"] == 1
    assert found["values_alone"]["relative_error"] > 0.1


def test_closeness_comes_with_its_cost(run: tuple[str, dict[str, Any]]) -> None:
    found = entries(run, "closeness")
    assert set(found) == {"oracle", "mra by mass"}
    assert found["mra by mass"]["params"]["block_score"] == "mass"
    one = found["oracle"]
    assert (one["budget"], one["budget_unit"]) == (4, "blocks per row")
    assert one["density"] == 4 / 16 < one["relative_cost"] < 0.26
    assert 0.1 < one["relative_error"] < 0.25
    assert 0.95 < one["cosine"] < 1
    assert one["layers"] == 6
    assert one["model"] == "all-MiniLM-L6-v2"


def test_what_could_not_run_is_listed_and_skipped(run: tuple[str, dict[str, Any]]) -> None:
    output, results = run
    reasons = {one["method"]: one for one in results["not_run"]}
    assert set(reasons) == {"broken", "flex_attention"}
    assert reasons["broken"] == {
        "kind": "attention",
        "method": "broken",
        "direction": "training",
        "tokens": 512,
        "reason": "RuntimeError: the cable is out",
    }
    assert "does not support backward on CPU" in reasons["flex_attention"]["reason"]
    assert "could not run" in output
    assert "broken (attention, training, 512): RuntimeError: the cable is out" in output
    assert "6 passed, 2 skipped" in output


def test_the_machine_is_described(run: tuple[str, dict[str, Any]]) -> None:
    output, results = run
    machine = results["machine_info"]
    assert machine["threads"] == 1
    assert machine["device"]
    assert machine["capability"]
    assert machine["versions"]["torch"].startswith(machine["torch"].split("+")[0])
    assert "node" not in machine
    assert "1 threads" in output
