"""The stages of the compiled attention: what they have to do, and their result file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from native_stages import STAGES, work_of_stages
from roofline import Device, Work, stages_beside

from mra_plugin.ops import MRAOptions

ROOT = Path(__file__).parents[2]


def test_work_counted_by_hand() -> None:
    # 2 heads of 64 tokens and 8 channels; 8 blocks of 8, 16 cells of 4, 2 blocks and 3 keys exact.
    options = MRAOptions(block_size=8, block_per_row=2, coarse_key_size=4, salient_keys=3)
    work = work_of_stages(64, 8, 2, options)
    assert set(work) == {*STAGES, "rest"}
    tensor = 4 * 2 * 64 * 8
    means, cells = 4 * 2 * 8 * 8, 4 * 2 * 16 * 8
    assert work["fine"] == Work(3 * tensor, 2 * (2 * 2 * 64 * 16 * 8))
    assert work["choosing"] == work["coarse"] == Work(means + cells, 2 * 2 * 8 * 16 * 8)
    assert work["salient"].operations == 2 * (2 * 8 * 64 * 8 + 2 * 2 * 64 * 3 * 8)
    assert work["pooling"].bytes == 3 * tensor + means + 2 * cells
    assert work_of_stages(64, 8, 2, MRAOptions(block_per_row=2))["salient"] == Work(0, 0)


def test_stages_stand_beside_their_floors() -> None:
    device = Device(bandwidth=1e9, peak=1e10)
    work = {"fine": Work(1e6, 4e7), "salient": Work(1, 1), "rest": Work(0, 0)}
    found = stages_beside(work, device, {"fine": 6e-3, "salient": 0.0, "rest": 2e-3})
    assert found == [
        {
            "stage": "fine",
            "seconds": 6e-3,
            "share": 0.75,
            "floor_bytes_seconds": pytest.approx(1e-3),
            "floor_operations_seconds": pytest.approx(4e-3),
        },
        {
            "stage": "rest",
            "seconds": 2e-3,
            "share": 0.25,
            "floor_bytes_seconds": 0,
            "floor_operations_seconds": 0,
        },
    ]


@pytest.mark.slow
def test_stages_alone_make_a_result_file(tmp_path: Path) -> None:
    """Builds the library with its clocks, so there has to be a compiler."""
    file = tmp_path / "stages.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "benchmarks/test_native_stages.py", "--full"),
            *("-k", "4096-forward-mra-close", "-p", "no:cacheprovider", f"--benchmark-json={file}"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "where the time goes" in done.stdout
    (one,) = (entry["extra_info"] for entry in json.loads(file.read_text())["benchmarks"])
    assert one["kind"] == "stages"
    assert [part["stage"] for part in one["stages"]] == [*STAGES, "rest"]
    assert sum(part["share"] for part in one["stages"]) == pytest.approx(1)
    fine = next(part for part in one["stages"] if part["stage"] == "fine")
    # Nothing is faster than what the processor does at best.
    assert fine["seconds"] > fine["floor_operations_seconds"]
