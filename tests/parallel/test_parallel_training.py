"""`mra train` in two processes, beside one process with the same global batch."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers as tf
from helpers.training_runs import CHECKPOINT, STEPS, arguments, losses, make_inputs, train
from helpers.worlds import World

from mra_plugin.training.distilled import FIGURES

Worlds = Callable[[int], World]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, world: Worlds) -> Path:
    """Inputs, and the run of one process in ``one``."""
    path = tmp_path_factory.mktemp("training")
    make_inputs(path)
    assert run(world(1), path, "one") == ["DistributedType.NO"]
    return path


def run(world: World, folder: Path, out: str, *more: str, fsdp: bool = False) -> list[str]:
    """Trains in all processes of a world; returns how accelerate ran it in each."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    return world.run(train, folder, out, port, fsdp, *more)


def assert_same_run(folder: Path, out: str) -> None:
    """The same loss in every step, to the rounding of float32, and the same model in the end."""
    expected = losses(folder / "one")
    assert len(expected) == STEPS
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(losses(folder / out), expected, rtol=2e-6)
    one, other = (tf.RobertaForMaskedLM.from_pretrained(folder / run) for run in ("one", out))
    assert other.config.mra == {"block_per_row": 1}
    start = tf.RobertaForMaskedLM.from_pretrained(folder / "model").state_dict()
    found = other.state_dict()
    for name, weight in one.state_dict().items():
        np.testing.assert_allclose(found[name], weight, rtol=0, atol=2e-5, err_msg=name)
    moved = [(found[name] - start[name]).abs().max() for name in found]
    assert max(moved) > 1e-3


def interrupted(folder: Path, run: str, copy: str) -> None:
    """A copy of a run as a kill after the first checkpoint would have left it."""
    shutil.copytree(folder / run, folder / copy)
    shutil.rmtree(folder / copy / f"checkpoint-{STEPS}")
    (folder / copy / "model.safetensors").unlink()


def test_data_parallel(folder: Path, world: Worlds) -> None:
    assert run(world(2), folder, "two") == ["DistributedType.MULTI_CPU"] * 2
    assert_same_run(folder, "two")
    interrupted(folder, "two", "two then one")
    run(world(1), folder, "two then one", "--resume")
    assert_same_run(folder, "two then one")


def test_fully_sharded(folder: Path, world: Worlds) -> None:
    assert run(world(2), folder, "sharded", fsdp=True) == ["DistributedType.FSDP"] * 2
    assert_same_run(folder, "sharded")
    checkpoint = folder / "sharded" / f"checkpoint-{STEPS}"
    first, last = (
        tf.RobertaForMaskedLM.from_pretrained(path).state_dict()
        for path in (checkpoint, folder / "sharded")
    )
    assert all(first[name].equal(last[name]) for name in last)
    interrupted(folder, "sharded", "sharded again")
    run(world(2), folder, "sharded again", "--resume", fsdp=True)
    assert_same_run(folder, "sharded again")


def test_distillation(folder: Path, world: Worlds) -> None:
    options = ("--distill", "self", "--eval-share", "0.2", "--closeness-lengths", "64")
    run(world(1), folder, "distilled", *options)
    run(world(2), folder, "distilled by two", *options)
    one, two = (folder / name for name in ("distilled", "distilled by two"))
    # The first step is at its teacher still, and the learning rate is too high to stay there.
    assert max(losses(one)) > 1e-3
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4, atol=1e-6)
    figures, found = (json.loads((out / FIGURES).read_text()) for out in (one, two))
    assert found["before"] == figures["before"]
    assert found["after"][0] == pytest.approx(figures["after"][0], rel=1e-5)
    # A sharded model has no hidden states to compare.
    run(world(2), folder, "distilled in shards", *options, fsdp=True)
    assert not list((folder / "distilled in shards").glob("*"))


def test_torchrun_goes_on_with_what_one_process_began(folder: Path) -> None:
    interrupted(folder, "one", "one then two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = ["--nproc-per-node", "2", "-m", "mra_plugin.cli"]
    ended = subprocess.run(
        [*launcher, *command, *arguments(folder, "one then two", "--resume")],
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"checkpoint-{CHECKPOINT}" in ended.stdout
    assert_same_run(folder, "one then two")
