"""The GPU benchmark from end to end, at toy sizes, with Triton's interpreter for a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.ops import mra_attention

pytest.importorskip("triton", reason="triton has no wheel for this platform")

ROOT = Path(__file__).parents[2]
ORIGINAL = """
from mra_plugin.ops import mra_attention

def attend(query, key, value, *, block_size, num_blocks):
    assert str(query.dtype) == "torch.float32"
    return mra_attention(query, key, value, block_size=block_size, num_blocks=num_blocks)
"""
EXACT = {"flash", "cudnn", "efficient", "xformers"}
APPROXIMATE = {"mra 16x3", "mra 32x1", "flex_attention 16x3", "original"}


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder),
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "gpu",
        "benchmarks/gpu", *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The result file of a rehearsal, and what it printed."""
    folder = tmp_path_factory.mktemp("rehearsal")
    (folder / "mra_original.py").write_text(ORIGINAL)
    file = folder / "result.json"
    done = run(
        "--rehearse", "--original-module", "mra_original", f"--benchmark-json={file}",
        # One compilation of flex_attention is enough.
        "-k", "not flex_attention-32x1 and not (flex_attention and training)",
        folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(file.read_text()), done.stdout


def extras(result: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The extra_info of all benchmarks of a kind."""
    found = (one["extra_info"] for one in result["benchmarks"])
    return [one for one in found if one["kind"] == kind]


def test_every_contender_has_a_result_or_a_reason(rehearsed: tuple[dict[str, Any], str]) -> None:
    result, _ = rehearsed
    found = extras(result, "attention")
    done = {(one["method"], one["tokens"], one["direction"]) for one in found}
    missing = {(one["method"], one["tokens"], one["direction"]) for one in result["not_run"]}
    assert not done & missing
    for tokens, direction in ((t, d) for t in (32, 64) for d in ("forward", "training")):
        methods = {method for method, *rest in done | missing if rest == [tokens, direction]}
        flex = tokens == 64 and direction == "forward"
        assert methods == EXACT | APPROXIMATE - (set() if flex else {"flex_attention 16x3"})
    assert {method for method, *_ in missing} == {"cudnn", "efficient", "xformers"}
    assert all(one["kind"] == "attention" and one["reason"] for one in result["not_run"])


def test_entries_hold_what_a_reader_needs(rehearsed: tuple[dict[str, Any], str]) -> None:
    result, _ = rehearsed
    for one in extras(result, "attention"):
        assert one["reference"] == "flash"
        assert one["shape"] == [64 // one["tokens"], 1, one["tokens"], 16]
        assert one["seconds"] > 0
        assert one["speed_up_from"] <= one["speed_up"] <= one["speed_up_to"]
        assert one["peak_bytes"] > 0
        assert one["reference_peak_bytes"] > 0
        if one["method"] == "flash":
            assert one["speed_up"] == 1
            assert one["relative_error"] == 0
        elif one["method"] != "flex_attention 16x3" and one["tokens"] == 32:
            # Two blocks of 16, all of them chosen; one block of 32.
            assert one["relative_error"] < 1e-5
        else:
            assert 1e-3 < one["relative_error"] < 2
    same = {one["method"]: one for one in extras(result, "attention")}
    assert same["mra 16x3"]["relative_error"] == pytest.approx(same["original"]["relative_error"])
    assert same["mra 16x3"]["params"] == {"block_size": 16, "block_per_row": 3}
    assert result["machine_info"]["versions"]["torch"] == result["machine_info"]["torch"]


def test_flex_attention_sees_the_blocks_that_mra_chose(
    rehearsed: tuple[dict[str, Any], str],
) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, 64, 16, generator=generator) for _ in range(3))
    exact = scaled_dot_product_attention(query, key, value)
    sparse = mra_attention(
        query, key, value, block_size=16, block_per_row=3, approx_mode="sparse", impl="reference"
    )
    extra = extras(rehearsed[0], "attention")
    (flex,) = (one for one in extra if one["method"] == "flex_attention 16x3")
    assert flex["relative_error"] == pytest.approx(((sparse - exact).norm() / exact.norm()).item())


def test_stages_add_up_and_are_printed(rehearsed: tuple[dict[str, Any], str]) -> None:
    result, printed = rehearsed
    stages = ["pooling", "choosing", "coarse", "fine"]
    for tokens, direction in ((t, d) for t in (32, 64) for d in ("forward", "training")):
        (found,) = (
            one["stages"]
            for one in extras(result, "stages")
            if (one["tokens"], one["direction"]) == (tokens, direction)
        )
        assert [one["stage"] for one in found] == stages
        assert sum(one["share"] for one in found) == pytest.approx(1)
        assert all(one["floor_bytes_seconds"] > 0 for one in found)
        assert all(one["floor_operations_seconds"] > 0 for one in found)
    assert "where the time goes" in printed
    assert "goals on an H100 (a rehearsal, which says nothing)" in printed
    assert "not measured: nothing was trained on a CUDA device" in printed


def test_without_a_gpu_it_says_how_to_rehearse(tmp_path: Path) -> None:
    done = run(folder=tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "needs an NVIDIA GPU" in done.stdout + done.stderr
    assert "--rehearse" in done.stdout + done.stderr
