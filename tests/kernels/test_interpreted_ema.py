"""The moving average's kernels, run by Triton's interpreter, against the recurrence in float64."""

from typing import Any

import pytest
import torch
from helpers.attention_calls import relative_error
from helpers.moving_average import compare, random_call, run
from torch import Tensor

from mra_plugin.ops import damped_ema
from mra_plugin.ops.ema import operators

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("_interpreter")]

LIMITS = {torch.float32: 5e-6, torch.bfloat16: 4e-2, torch.float16: 2.5e-3}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of many chunks that don't take minutes."""
    from mra_plugin.ops.ema.triton import launch

    monkeypatch.setattr(launch, "_CHUNK", 8)
    monkeypatch.setattr(launch, "STEP", 4)
    monkeypatch.setattr(launch, "NUMBERS", 32)
    monkeypatch.setattr(launch, "WIDTH", 16)


# A token, and chunks that are whole, begun, and but for a token.
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 19])
def test_lengths(length: int) -> None:
    call = random_call(length, batch=1, bidirectional=True, mask=True, dtype=torch.float32)
    compare("triton", call, LIMITS[torch.float32])


@pytest.mark.parametrize("length", [1, 13])
@pytest.mark.parametrize("state", [False, True])
def test_a_state_is_carried(length: int, state: bool) -> None:
    call = random_call(length, state=state, mask=True, dtype=torch.float32)
    compare("triton", call, LIMITS[torch.float32], return_state=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types(dtype: torch.dtype) -> None:
    compare("triton", random_call(9, bidirectional=True, dtype=dtype), LIMITS[dtype])


@pytest.mark.parametrize(("channels", "averages"), [(1, 1), (3, 5), (9, 3), (2, 16)])
def test_shapes(channels: int, averages: int) -> None:
    call = random_call(
        9, channels=channels, averages=averages, bidirectional=True, dtype=torch.float32
    )
    compare("triton", call, LIMITS[torch.float32])


def test_inputs_of_any_layout() -> None:
    call = random_call(11, dtype=torch.float32, mask=True)
    expected = run(call, impl="triton")
    x, mask = call["x"], call["mask"]
    call["mask"] = mask.t().contiguous().t()
    for other in (x.transpose(0, 1).contiguous().transpose(0, 1), x.mT.contiguous().mT):
        torch.testing.assert_close(run({**call, "x": other}, impl="triton"), expected)


def test_whatever_stands_at_padding_reaches_no_token() -> None:
    call = random_call(13, bidirectional=True, mask=True, dtype=torch.float32)
    padding = ~call["mask"][..., None]
    results = [
        run({**call, "x": call["x"].masked_fill(padding, filling)}, impl="triton")
        for filling in (0.0, float("nan"))
    ]
    assert all(torch.equal(one, results[1][name]) for name, one in results[0].items())


def test_two_runs_agree_to_the_bit_and_with_the_scan() -> None:
    call = random_call(13, bidirectional=True, dtype=torch.float32)
    first, second = run(call, impl="triton"), run(call, impl="triton")
    assert all(torch.equal(one, second[name]) for name, one in first.items())
    scan = run(call, impl="scan")
    assert all(relative_error(one, scan[name]) < 5e-6 for name, one in first.items())


def test_operators_are_well_behaved() -> None:
    call = random_call(9, batch=1, state=True, mask=True, dtype=torch.float32)
    tensors = [call[name].requires_grad_() for name in ("x", "p", "q", "gamma")]
    given = (*tensors, call["mask"], call["state"], None, False, True, "triton")
    torch.library.opcheck(operators.forward, given)
    plain = [x.detach() if isinstance(x, Tensor) else x for x in given]
    grads = (torch.randn_like(call["x"]), torch.randn_like(call["state"]))
    torch.library.opcheck(operators.backward, (*grads, *plain))


def test_compiles_whole_and_once_for_every_length() -> None:
    def average(call: dict[str, Any]) -> Tensor:
        return damped_ema(**{**call, "x": call["x"] + 1}, impl="triton")

    torch.compiler.reset()
    compiled = torch.compile(average, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (9, 13):
            call = random_call(length, bidirectional=True, dtype=torch.float32)
            torch.testing.assert_close(compiled(call), average(call))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": torch.float64}, ["float64"]),
        ({"averages": 200}, ["128 averages", "200"]),
        ({"truncation": 3}, ["truncation", "9", "3"]),
    ],
)
def test_what_it_cannot_serve_it_refuses(change: dict[str, Any], words: list[str]) -> None:
    change = dict(change)
    truncation = change.pop("truncation", None)
    call = random_call(9, **{"dtype": torch.float32, **change})
    with pytest.raises(ValueError, match="triton") as caught:
        damped_ema(**call, truncation=truncation, impl="triton")
    assert all(word in str(caught.value) for word in words)
