"""Attention whose sequence is split among processes, beside one process that attends alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.sharded_calls import alone, compiled, error_of, in_pairs, together
from helpers.worlds import World

from mra_plugin.registry import (
    AttentionParameterError,
    AttentionUnavailableError,
    UnknownAttentionError,
    build_attention,
)

Worlds = Callable[[int], World]
MRA = {"name": "mra", "block_size": 8, "block_per_row": 3}
NYSTROM = {"name": "nystrom", "num_landmarks": 8}
ATTENTION = {
    "mra": MRA,
    "mra per row, sparse": {**MRA, "selection": "per_row", "approx_mode": "sparse"},
    # Of the two padded sequences one is exact.
    "mra, all of it new": {
        **MRA,
        "selection": "per_row",
        "block_per_row": 2,
        "coarse_key_size": 2,
        "salient_keys": 5,
        "block_score": "mass",
        "exact_up_to": 50,
    },
    "mra preset": {"name": "mra", "preset": "close", "block_per_row": 2, "exact_up_to": 0},
    "nystrom": NYSTROM,
    "sdpa": {"name": "sdpa"},
    "a plugin's": {"name": "first-token", "factor": 0.5},
}


def assert_same(shards: list[list[np.ndarray]], whole: list[np.ndarray], tolerance: float) -> None:
    """Compares output and gradients; shards lie along the third axis."""
    for expected, *parts in zip(whole, *shards, strict=True):
        found = np.concatenate(parts, axis=2)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("masked", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("size", [2, 4])
def test_output_and_gradients_are_those_of_one_process(
    world: Worlds, size: int, name: str, masked: bool
) -> None:
    # Nyström attention starts its iteration from the greatest norm among the heads it is given.
    parts = size if name == "nystrom" else 1
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2e-5)):
        shards = world(size).run(together, ATTENTION[name], dtype, masked)
        whole = alone(ATTENTION[name], dtype, masked, parts=parts)
        assert_same(shards, whole, tolerance)


def test_nystrom_is_that_of_one_process_once_its_iteration_has_converged(world: Worlds) -> None:
    attention = {**NYSTROM, "num_landmarks": 4, "pinv_iterations": 30}
    shards = world(2).run(together, attention, torch.float64, True)
    assert_same(shards, alone(attention, torch.float64, True), 1e-9)


def test_queries_of_another_length_than_keys(world: Worlds) -> None:
    for masked in (False, True):
        shards = world(2).run(together, MRA, torch.float64, masked, 48)
        assert_same(shards, alone(MRA, torch.float64, masked, 48), 1e-13)


def test_the_processes_of_a_mesh(world: Worlds) -> None:
    for out, expected in world(4).run(in_pairs):
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-13)


def test_it_compiles_to_one_graph(world: Worlds) -> None:
    for plain, faster in world(2).run(compiled):
        np.testing.assert_allclose(faster, plain, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("heads", ["3 heads", "2 processes", "divide"]),
        ("lengths", ["query [1, 4, 8, 4]", "process 1", "query [1, 4, 7, 4]", "shard_inputs"]),
        ("masks", ["key_padding_mask None", "key_padding_mask given"]),
        ("mesh", ["one dimension", "'sequence'"]),
        ("outsider", ["group", "this process is in"]),
    ],
)
def test_mistakes_are_told_to_every_process(world: Worlds, mistake: str, words: list[str]) -> None:
    for message in world(2).run(error_of, mistake):
        for word in words:
            assert word in message, message


def test_it_needs_a_process_group() -> None:
    x = torch.zeros(1, 2, 8, 4)
    attention = build_attention("ulysses", inner="sdpa")
    with pytest.raises(RuntimeError, match="torchrun"):
        attention(x, x, x)
    assert "Sdpa" in repr(attention)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"inner": "mrra"}, UnknownAttentionError, "mra"),
        ({"inner": "ulysses"}, ValueError, "ulysses"),
        ({"inner": "mra", "blocks": 3}, AttentionParameterError, "blocks"),
        ({"block_size": 12}, ValueError, "block_size"),
        (
            {"inner": "nystrom", "conv_kernel_size": 3, "num_heads": 2},
            ValueError,
            "without weights.*conv.weight",
        ),
    ],
)
def test_wrong_parameters(params: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_attention("ulysses", **params)


def test_without_torch_distributed_the_registry_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(AttentionUnavailableError, match=r"without torch\.distributed"):
        build_attention("ulysses")
    build_attention("mra")
