"""Bad input is refused with the argument's name and what it was."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mra_plugin.ops import MRAOptions, launching, mra_attention, mra_attention_weights, triton


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(shape, dtype=dtype)


GOOD = {"query": x(2, 3, 8, 4), "key": x(2, 3, 8, 4), "value": x(2, 3, 8, 4)}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"query": x(3, 8, 4)}, ValueError, ["query", "4 dimensions", "(3, 8, 4)"]),
        ({"value": x(8)}, ValueError, ["value", "(8,)"]),
        ({"key": None}, TypeError, ["key", "NoneType"]),
        ({"key": x(2, 2, 8, 4)}, ValueError, ["key", "heads", "(2, 2, 8, 4)"]),
        ({"value": x(1, 3, 8, 4)}, ValueError, ["value", "batch", "(1, 3, 8, 4)"]),
        ({"value": x(2, 3, 9, 4)}, ValueError, ["value", "length 8", "(2, 3, 9, 4)"]),
        ({"key": x(2, 3, 8, 5)}, ValueError, ["key", "channels", "(2, 3, 8, 5)"]),
        (
            {"query": x(2, 3, 8, 0), "key": x(2, 3, 8, 0)},
            ValueError,
            ["query", "channels", "(2, 3, 8, 0)"],
        ),
        (
            {"key": x(2, 3, 8, 4, dtype=torch.float64)},
            TypeError,
            ["key", "torch.float32", "torch.float64"],
        ),
        ({"query": x(2, 3, 8, 4, dtype=torch.int64)}, TypeError, ["query", "torch.int64"]),
        ({"query": x(2, 3, 8, 4, dtype=torch.complex64)}, TypeError, ["query", "complex64"]),
        ({"value": x(2, 3, 8, 4).to("meta")}, ValueError, ["value", "device", "meta"]),
        ({"key_padding_mask": x(2, 8)}, TypeError, ["key_padding_mask", "bool", "float32"]),
        ({"key_padding_mask": [True]}, TypeError, ["key_padding_mask", "bool", "list"]),
        (
            {"key_padding_mask": x(2, 9).bool()},
            ValueError,
            ["key_padding_mask", "(2, 8)", "(2, 9)"],
        ),
        (
            {"query_padding_mask": x(8).bool()},
            ValueError,
            ["query_padding_mask", "(2, 8)", "(8,)"],
        ),
        (
            {"key_padding_mask": x(2, 8).bool().to("meta")},
            ValueError,
            ["key_padding_mask", "device", "meta"],
        ),
        ({"block_size": 0}, ValueError, ["block_size", "0"]),
        ({"block_size": 48}, ValueError, ["block_size", "power of two", "48"]),
        ({"block_size": 256}, ValueError, ["block_size", "256"]),
        ({"block_size": 32.0}, TypeError, ["block_size", "32.0"]),
        ({"block_per_row": 0}, ValueError, ["block_per_row", "0"]),
        ({"block_per_row": -1}, ValueError, ["block_per_row", "-1"]),
        ({"block_per_row": True}, TypeError, ["block_per_row", "True"]),
        ({"block_per_row": "4"}, TypeError, ["block_per_row", "'4'"]),
        ({"num_blocks": 0}, ValueError, ["num_blocks", "0"]),
        ({"num_blocks": 10**30}, ValueError, ["num_blocks", "2**31"]),
        ({"num_blocks": 1.5}, TypeError, ["num_blocks", "1.5"]),
        (
            {"num_blocks": 4, "selection": "per_row"},
            ValueError,
            ["num_blocks", "selection", "block_per_row"],
        ),
        ({"initial_prior_first_n_blocks": -1}, ValueError, ["initial_prior_first_n_blocks"]),
        (
            {"initial_prior_diagonal_n_blocks": 1.0},
            TypeError,
            ["initial_prior_diagonal_n_blocks", "1.0"],
        ),
        ({"approx_mode": "half"}, ValueError, ["approx_mode", "full", "sparse", "half"]),
        ({"selection": "rows"}, ValueError, ["selection", "global", "per_row", "rows"]),
        ({"impl": "cuda"}, ValueError, ["impl", "eager", "cuda"]),
        ({"scale": 0.0}, ValueError, ["scale", "0.0"]),
        ({"scale": float("nan")}, ValueError, ["scale", "nan"]),
        ({"scale": "big"}, TypeError, ["scale", "big"]),
    ],
)
def test_refused(change: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        mra_attention(**{**GOOD, **change})
    assert all(word in str(caught.value) for word in words), str(caught.value)
    if not change.keys() & {"value", "impl"}:
        arguments = {**GOOD, **change}
        del arguments["value"]
        with pytest.raises(error):
            mra_attention_weights(**arguments)


def test_good_input_passes() -> None:
    assert mra_attention(**GOOD).shape == (2, 3, 8, 4)
    assert mra_attention_weights(GOOD["query"], GOOD["key"]).shape == (2, 3, 8, 8)


@pytest.mark.parametrize("impl", ["auto", "eager", "reference"])
@pytest.mark.parametrize("length", [8, 300])
def test_shapes_on_the_device_meta(impl: str, length: int) -> None:
    inputs = [x(2, 3, length, 4).to("meta") for _ in range(3)]
    mask = torch.ones(2, length, dtype=torch.bool, device="meta")
    out, lse = mra_attention(*inputs, mask, return_lse=True, impl=impl)
    assert (out.shape, lse.shape) == ((2, 3, length, 4), (2, 3, length))
    assert mra_attention(*inputs, mask, impl=impl).is_meta


def test_amd_gpus_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "_INSTALLED", True)
    on_gpu = SimpleNamespace(is_cuda=True, dtype=torch.float16, shape=(1, 1, 8, 64), device="cuda")
    assert triton.why_unsupported(on_gpu, on_gpu, MRAOptions()) is None
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "NVIDIA" in (triton.why_unsupported(on_gpu, on_gpu, MRAOptions()) or "")
