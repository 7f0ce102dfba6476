"""The damped moving average: every way to compute it against the recurrence in float64."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from helpers.attention_calls import relative_error
from helpers.moving_average import compare, random_call, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mra_plugin.ops import damped_ema
from mra_plugin.ops.ema import fft, operators, scan

HERE = ("scan", "fft")
# One token, two, primes, and a chunk's or two chunks' border.
LENGTHS = (1, 2, 7, 15, 16, 17, 31, 33, 64, 97)


def kernel(p: Tensor, q: Tensor, gamma: Tensor, length: int) -> Tensor:
    """[kD, L], as the paper has it."""
    steps = torch.arange(length, dtype=p.dtype)
    return (gamma[..., None] * p[..., None] * q[..., None] ** steps).sum(1)


@pytest.mark.parametrize("length", [1, 2, 9, 20])
@pytest.mark.parametrize("truncation", [None, 1, 4, 50])
def test_the_reference_is_the_convolution_of_the_paper(length: int, truncation: int | None) -> None:
    call = random_call(length, bidirectional=True)
    x, channels = call["x"], call["x"].shape[-1]
    out = damped_ema(**call, truncation=truncation, scale=0.3, impl="reference")
    taps = kernel(call["p"], call["q"], call["gamma"], length) * 0.3
    taps[:, length if truncation is None else truncation :] = 0
    expected = torch.zeros_like(x)
    for t in range(length):
        for other in range(length):
            distance = abs(t - other)
            if other <= t:
                expected[:, t] += taps[:channels, distance] * x[:, other]
            if other >= t:
                expected[:, t] += taps[channels:, distance] * x[:, other]
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_agreement(impl: str, bidirectional: bool, length: int) -> None:
    for masked in (False, True):
        shape = {"bidirectional": bidirectional, "mask": masked}
        compare(impl, random_call(length, **shape), 1e-12)
        # The decay of almost 1 is a float32 number, the same in both.
        compare(impl, random_call(length, **shape, dtype=torch.float32), 1e-5)


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_state_is_carried(impl: str, length: int) -> None:
    for state, masked in ((True, True), (True, False), (False, False)):
        call = random_call(length, state=state, mask=masked)
        compare(impl, call, 1e-12, return_state=True)
        call = random_call(length, state=state, mask=masked, dtype=torch.float32)
        compare(impl, call, 1e-5, return_state=True)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("truncation", [1, 2, 5, 33, 96, 97, 500])
def test_truncation(bidirectional: bool, truncation: int) -> None:
    for length in (1, 5, 64, 97):
        call = random_call(length, bidirectional=bidirectional, mask=True)
        compare("auto", call, 1e-12, truncation=truncation)
        compare("fft", call, 1e-12, truncation=truncation)


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 150),
    batch=st.integers(1, 3),
    channels=st.integers(1, 6),
    averages=st.integers(1, 9),
    bidirectional=st.booleans(),
    masked=st.booleans(),
    truncation=st.none() | st.integers(1, 160),
    impl=st.sampled_from(["auto", *HERE]),
    seed=st.integers(0, 99),
)
def test_any_call(
    length: int,
    batch: int,
    channels: int,
    averages: int,
    bidirectional: bool,
    masked: bool,
    truncation: int | None,
    impl: str,
    seed: int,
) -> None:
    if impl == "scan" and truncation is not None and truncation < length:
        impl = "auto"
    call = random_call(
        length,
        batch=batch,
        channels=channels,
        averages=averages,
        bidirectional=bidirectional,
        mask=masked,
        seed=seed,
    )
    compare(impl, call, 1e-11, truncation=truncation)


def test_tiles_of_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_TILE", 64)
    monkeypatch.setattr(fft, "_NUMBERS", 1)
    for impl in ("scan", "fft"):
        compare(impl, random_call(150, batch=3, bidirectional=True, mask=True), 1e-12)
        compare(impl, random_call(150, batch=3, state=True), 1e-12)


@pytest.mark.parametrize("impl", HERE)
def test_gradients_by_differences(impl: str) -> None:
    call = random_call(20, batch=1, channels=2, averages=2)
    # At the ends of their range decays have differences to one side only.
    call["q"] = call["q"].clamp(0.1, 0.9)
    names = ("x", "p", "q", "gamma")

    def average(*tensors: Tensor) -> Tensor:
        return damped_ema(*tensors, truncation=7 if impl == "fft" else None, impl=impl)

    assert torch.autograd.gradcheck(average, [call[name].requires_grad_() for name in names])


@pytest.mark.parametrize("impl", ["auto", "reference", "scan", "fft"])
def test_parts_one_after_the_other_are_the_whole(impl: str) -> None:
    call = random_call(97, mask=True)
    whole, after = damped_ema(**call, impl=impl, return_state=True)
    state, parts, start = None, [], 0
    for length in (40, 1, 1, 33, 22):
        own = slice(start, start + length)
        part = {**call, "x": call["x"][:, own], "mask": call["mask"][:, own], "state": state}
        out, state = damped_ema(**part, impl=impl, return_state=True)
        parts.append(out)
        start += length
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(state, after)


@pytest.mark.parametrize("impl", ["reference", *HERE])
def test_padding_is_tokens_of_zeros_whatever_stands_there(impl: str) -> None:
    call = random_call(40, bidirectional=True, mask=True)
    padding = ~call["mask"][..., None]
    zeros = damped_ema(**{**call, "x": call["x"].masked_fill(padding, 0), "mask": None}, impl=impl)
    x = call["x"].masked_fill(padding, float("nan")).requires_grad_()
    out = damped_ema(**{**call, "x": x}, impl=impl)
    torch.testing.assert_close(out, zeros)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.all(grad.masked_select(padding) == 0)
    assert grad.isfinite().all()


def test_padding_in_front_changes_nothing() -> None:
    call = random_call(30)
    alone, after = damped_ema(**call, return_state=True)
    padded = {**call, "x": torch.cat((torch.ones(2, 11, 5).double(), call["x"]), 1)}
    mask = torch.arange(41).expand(2, -1) >= 11
    out, state = damped_ema(**padded, mask=mask, return_state=True)
    torch.testing.assert_close(out[:, 11:], alone)
    torch.testing.assert_close(state, after)


@pytest.mark.parametrize("impl", HERE)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_computed_in_float32(impl: str, dtype: torch.dtype) -> None:
    call = random_call(97, dtype=dtype, bidirectional=True)
    narrow = run(call, impl=impl)
    wide = run({**call, "x": call["x"].float()}, impl=impl)
    assert narrow["y"].dtype == narrow["grad_x"].dtype == dtype
    assert torch.equal(narrow["y"], wide["y"].to(dtype))
    # The gradient of y is of its type, too.
    compare(impl, call, 2e-2 if dtype == torch.bfloat16 else 2.5e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(damped_ema(**call, impl=impl), narrow["y"])


def test_state_of_narrow_types_is_float32() -> None:
    call = random_call(20, dtype=torch.bfloat16)
    _, after = damped_ema(**call, return_state=True)
    assert after.dtype == torch.float32
    out, after = damped_ema(**call, state=after.bfloat16(), return_state=True)
    assert out.dtype == torch.bfloat16
    assert after.dtype == torch.float32


@pytest.mark.parametrize("impl", HERE)
def test_slow_decays_over_many_tokens(impl: str) -> None:
    """Exact in float32 where powers that are multiplied up one by one would not be."""
    length = 3000
    x = torch.randn(1, length, 3, generator=torch.Generator().manual_seed(0)) + 1
    q = torch.tensor([[0.9999, 0.99], [0.999, 1e-3], [1.0, 0.5]])
    call = {"x": x, "p": torch.ones(3, 2), "q": q, "gamma": torch.ones(3, 2)}
    out = damped_ema(**call, impl=impl)
    exact = damped_ema(**{name: one.double() for name, one in call.items()}, impl="scan")
    assert relative_error(out, exact) < 1e-6


def saved_bytes(function: Any) -> int:
    seen: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        seen[x.data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        function()
    return sum(seen.values())


@pytest.mark.parametrize("impl", HERE)
def test_the_backward_keeps_the_inputs_alone(impl: str) -> None:
    call = random_call(256, batch=1, channels=16, averages=16, dtype=torch.bfloat16)
    leaves = {n: call[n].requires_grad_() for n in ("x", "p", "q", "gamma")}
    own = sum(x.nbytes for x in leaves.values())
    # The scaled gamma is one more table.
    assert saved_bytes(lambda: damped_ema(**leaves, impl=impl)) <= own + call["gamma"].nbytes + 8
    # A kernel by its powers keeps averages for each token, several times.
    assert own < 16 * 16 * 256 * 4 / 10


def test_only_what_is_asked_for_gets_gradients() -> None:
    call = random_call(20, state=True)
    for name in ("x", "p", "q", "gamma", "state"):
        leaf = call[name].clone().requires_grad_()
        out, after = damped_ema(**{**call, name: leaf}, return_state=True)
        (alone,) = torch.autograd.grad(after.sum(), leaf, allow_unused=True, retain_graph=True)
        assert (alone is None or bool(alone.any())) == (name != "gamma" or alone is None)
        torch.autograd.grad(out.sum(), leaf)


def test_nothing_to_do() -> None:
    for batch, length in ((0, 5), (2, 0)):
        call = random_call(length, batch=batch, state=True)
        for impl in ("auto", "reference", "fft"):
            results = run(call, impl=impl, return_state=True)
            assert results["y"].shape == (batch, length, 5)
            torch.testing.assert_close(results["after"], call["state"])


@pytest.mark.parametrize("length", [1, 2, 3, 7, 11, 4095, 4096, 4097, 8191, 131071])
def test_good_lengths(length: int) -> None:
    def is_good(n: int) -> bool:
        for factor in (2, 3, 5):
            while n % factor == 0:
                n //= factor
        return n == 1

    found = fft.good_length(length)
    assert found >= length
    assert is_good(found)
    assert not any(is_good(n) for n in range(length, found))


SETTINGS = [
    (None, False, False, "scan"),
    (None, True, False, "scan"),
    (None, False, True, "scan"),
    (None, False, True, "fft"),
    (6, True, False, "fft"),
]


@pytest.mark.parametrize(("truncation", "bidirectional", "states", "method"), SETTINGS)
def test_operators_are_well_behaved(
    truncation: int | None, bidirectional: bool, states: bool, method: str
) -> None:
    call = random_call(18, bidirectional=bidirectional, state=states, mask=True)
    tensors = [call[name].requires_grad_() for name in ("x", "p", "q", "gamma")]
    state = call["state"].requires_grad_() if states else None
    given = (*tensors, call["mask"], state, truncation, bidirectional, states, method)
    torch.library.opcheck(operators.forward, given)
    out, after = (x.detach() for x in operators.forward(*given))
    plain = [x.detach() if isinstance(x, Tensor) else x for x in given]
    grads = (torch.randn_like(out), torch.randn_like(after) if states else None)
    torch.library.opcheck(operators.backward, (*grads, *plain))


@pytest.mark.parametrize("options", [
    {"mask": True, "bidirectional": True},
    {"truncation": 9},
    {"state": True},
])  # fmt: skip
def test_compiles_whole_and_once_for_every_length(options: dict[str, Any]) -> None:
    options = dict(options)
    fixed = {"truncation": options.pop("truncation", None)}
    fixed["return_state"] = options.get("state", False)

    def average(call: dict[str, Any]) -> Any:
        return damped_ema(**{**call, "x": call["x"] + 1}, **fixed)

    torch.compiler.reset()
    compiled = torch.compile(average, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (40, 64, 33):
            results = []
            for function in (compiled, average):
                call = random_call(length, **options)
                call["x"].requires_grad_()
                call["q"].requires_grad_()
                out = function(call)
                total = sum(x.square().sum() for x in (out if isinstance(out, tuple) else (out,)))
                results.append((total.detach(), call["x"].grad, call["q"].grad))
                grads = torch.autograd.grad(total, (call["x"], call["q"]))
                results[-1] = (total.detach(), *grads)
            torch.testing.assert_close(*results)


class Average(torch.nn.Module):
    def forward(self, x: Tensor, p: Tensor, q: Tensor, gamma: Tensor) -> Tensor:
        return damped_ema(x, p, q, gamma)


def test_an_exported_program_takes_any_length() -> None:
    names = ("x", "p", "q", "gamma")
    call = random_call(40)
    tokens = torch.export.Dim("tokens", min=2, max=4096)
    shapes = ({1: tokens}, None, None, None)
    program = torch.export.export(
        Average(), tuple(call[n] for n in names), dynamic_shapes=shapes
    ).module()
    for length in (2, 16, 33, 97):
        given = [random_call(length)[name] for name in names]
        torch.testing.assert_close(program(*given), Average()(*given))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_changes_nothing(use_reentrant: bool) -> None:
    results = []
    for checkpointed in (False, True):
        call = random_call(50)
        leaves = [call[name].requires_grad_() for name in ("x", "p", "q", "gamma")]
        if checkpointed:
            out = checkpoint(damped_ema, *leaves, use_reentrant=use_reentrant)
        else:
            out = damped_ema(*leaves)
        out.square().sum().backward()
        results.append([out.detach(), *(x.grad for x in leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_any_layout() -> None:
    call = random_call(40, bidirectional=True)
    expected = run(call)
    for name in ("x", "p", "q", "gamma"):
        one = call[name]
        apart = one.transpose(-1, -2).contiguous().transpose(-1, -2)
        actual = run({**call, name: apart})
        torch.testing.assert_close(actual, expected)


def test_forward_mode_is_refused_not_zero() -> None:
    call = random_call(20)
    x = call.pop("x")
    with pytest.raises(NotImplementedError, match=r"x .*forward-mode.*reference"):
        torch.func.jvp(lambda x: damped_ema(x, **call), (x,), (x,))
    _, tangent = torch.func.jvp(lambda x: damped_ema(x, **call, impl="reference"), (x,), (x,))
    torch.testing.assert_close(tangent, damped_ema(x, **call))


FIRST_CALL = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from mra_plugin.ops import damped_ema

def average(x, p, q, gamma):
    return 2 * damped_ema(x + 1, p, q, gamma)

inputs = torch.randn(1, 100, 3, requires_grad=True), *torch.rand(3, 3, 4)
out = torch.compile(average, fullgraph=True, backend="aot_eager")(*inputs)
out.sum().backward()
torch.testing.assert_close(out, average(*inputs))
try:
    damped_ema(*inputs, impl="triton")
except ValueError as error:
    print(error)
"""


def test_the_first_call_of_a_process_may_be_traced_and_without_triton() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST_CALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "triton is not installed" in done.stdout


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": torch.zeros(8, 5)}, ValueError, ["x", "(8, 5)", "[batch, tokens, channels]"]),
        ({"x": torch.zeros(2, 8, 5, dtype=torch.long)}, TypeError, ["x", "int64"]),
        ({"p": torch.zeros(10, 4)}, ValueError, ["p", "[5, averages]", "(10, 4)"]),
        ({"bidirectional": True}, ValueError, ["p", "[10, averages]", "(5, 4)"]),
        ({"q": torch.zeros(5, 3)}, ValueError, ["q", "(5, 4)", "(5, 3)"]),
        ({"gamma": None}, TypeError, ["gamma", "NoneType"]),
        ({"scale": 0.0}, ValueError, ["scale", "0.0"]),
        ({"scale": "x"}, TypeError, ["scale", "'x'"]),
        ({"truncation": 0}, ValueError, ["truncation", "0"]),
        ({"truncation": 2.0}, TypeError, ["truncation", "2.0"]),
        ({"mask": torch.zeros(2, 8)}, TypeError, ["mask", "bool", "float32"]),
        ({"mask": torch.zeros(2, 7, dtype=torch.bool)}, ValueError, ["mask", "(2, 8)", "(2, 7)"]),
        ({"state": torch.zeros(2, 5, 3)}, ValueError, ["state", "(2, 5, 4)", "(2, 5, 3)"]),
        ({"state": [1.0]}, TypeError, ["state", "list"]),
        ({"return_state": True, "truncation": 3}, ValueError, ["return_state", "truncation", "3"]),
        ({"impl": "eager"}, ValueError, ["impl", "'eager'"]),
        ({"impl": "scan", "truncation": 3}, ValueError, ["scan", "truncation", "8", "3"]),
        ({"impl": "triton"}, ValueError, ["triton", "CUDA"]),
    ],
)
def test_refused(change: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    good: dict[str, Any] = {name: torch.zeros(5, 4) for name in ("p", "q", "gamma")}
    good["x"] = torch.zeros(2, 8, 5)
    with pytest.raises(error) as caught:
        damped_ema(**{**good, **change})
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("what", ["state", "return_state"])
def test_what_follows_has_no_state(what: str) -> None:
    call = random_call(8, bidirectional=True)
    given = {"state": torch.zeros(2, 10, 4)} if what == "state" else {"return_state": True}
    with pytest.raises(ValueError, match=rf"{what} needs bidirectional=False"):
        damped_ema(**call, **given)


@pytest.mark.slow
@pytest.mark.parametrize("impl", HERE)
def test_many_channels_and_tokens(impl: str) -> None:
    for bidirectional in (False, True):
        call = random_call(2500, channels=40, averages=16, bidirectional=bidirectional, mask=True)
        compare(impl, call, 1e-11, truncation=700 if impl == "fft" else None)
