"""The operators under autocast, checkpointing, compilation and export."""

from typing import Any

import pytest
import torch
from helpers.agreement import HERE
from helpers.attention_calls import padding_mask, random_inputs, relative_error, run
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from mra_plugin.ops import MRAOptions, mra_attention
from mra_plugin.ops.eager.operators import operators as eager_operators
from mra_plugin.ops.native.operators import operators as native_operators
from mra_plugin.ops.operator_pair import arguments

OPTIONS = {"block_size": 16, "block_per_row": 2}
IMPLS = pytest.mark.parametrize("impl", HERE)
OPERATORS = {"eager": eager_operators, "native": native_operators}
CLOSE = {"coarse_key_size": 4, "salient_keys": 5, "block_score": "mass", "selection": "per_row"}


@IMPLS
def test_autocast_is_a_cast_of_the_inputs(impl: str) -> None:
    options = {**OPTIONS, "impl": impl}
    inputs = random_inputs(1, 2, 100, dtype=torch.float32)
    expected = run(tuple(x.bfloat16() for x in inputs), **options)
    leaves = [x.clone().requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = mra_attention(*leaves, **options, return_lse=True)
        reference = mra_attention(*inputs, **{**options, "impl": "reference"})
    assert out.dtype == reference.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    assert torch.equal(out, expected[0])
    assert torch.equal(lse, expected[1])
    assert relative_error(reference, out) < 8e-3


@IMPLS
def test_backward_inside_autocast_keeps_its_precision(impl: str) -> None:
    options = {**OPTIONS, "impl": impl}
    inputs = random_inputs(1, 2, 100)
    expected = run(inputs, **options)
    leaves = [x.clone().requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        out = mra_attention(*leaves, **options)
        (out.double() ** 2).sum().backward()
    again = [x.clone().requires_grad_() for x in inputs]
    (mra_attention(*again, **options) ** 2).sum().backward()
    assert out.dtype == torch.float64
    assert torch.equal(out, expected[0])
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(leaves, again, strict=True))


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("options", [{}, CLOSE])
@IMPLS
def test_checkpointing(impl: str, use_reentrant: bool, options: dict[str, Any]) -> None:
    inputs = random_inputs(1, 2, 100)
    options = {**OPTIONS, **options, "impl": impl}
    plain = [x.clone().requires_grad_() for x in inputs]
    mra_attention(*plain, **options).square().sum().backward()
    leaves = [x.clone().requires_grad_() for x in inputs]

    def attend(*tensors: Tensor) -> Tensor:
        return mra_attention(*tensors, **options)

    checkpoint(attend, *leaves, use_reentrant=use_reentrant).square().sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(leaves, plain, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"approx_mode": "sparse", "selection": "per_row"},
        {"num_blocks": 9},
        {"mask": True},
        {**CLOSE, "mask": True, "exact_up_to": 20},
    ],
)
@IMPLS
def test_operators_are_well_behaved(impl: str, options: dict[str, Any]) -> None:
    operators = OPERATORS[impl]
    query, key, value = (x.requires_grad_() for x in random_inputs(2, 2, 50, 41))
    options = dict(options)
    mask = padding_mask([41, 17], 41) if options.pop("mask", False) else None
    inputs = (query, key, value, mask, None)
    settings = arguments(MRAOptions(block_size=8, block_per_row=2, **options), 0.3)
    torch.library.opcheck(operators.forward, (*inputs, *settings))
    results = [x.detach() for x in operators.forward(*inputs, *settings)]
    saved = [None if x is None else x.detach() for x in inputs]
    grad_out = torch.randn_like(results[0])
    torch.library.opcheck(operators.backward, (grad_out, None, *results, *saved, *settings))


def loss_and_gradients(
    attend: Any, length: int, *, masked: bool
) -> tuple[Tensor, list[Tensor | None]]:
    inputs = [x.requires_grad_() for x in random_inputs(2, 2, length, dtype=torch.float32)]
    mask = padding_mask([length, length // 2], length) if masked else None
    out = attend(*inputs, mask)
    out.square().sum().backward()
    return out.detach(), [x.grad for x in inputs]


@pytest.mark.parametrize(
    ("masked", "options"), [(False, {}), (True, {}), (True, {**CLOSE, "exact_up_to": 60})]
)
@IMPLS
def test_compiles_whole_and_once_for_every_length(
    impl: str, masked: bool, options: dict[str, Any]
) -> None:
    options = {**OPTIONS, **options, "impl": impl}

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        # Work around the attention, so that there is something to fuse.
        return 2 * mra_attention(query + 1, key, value, mask, **options)

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (100, 128, 333):
            actual = loss_and_gradients(compiled, length, masked=masked)
            expected = loss_and_gradients(attend, length, masked=masked)
            torch.testing.assert_close(actual, expected)


def test_compiles_with_a_scale_that_is_symbolic() -> None:
    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return mra_attention(query, key, value, scale=scale, **OPTIONS)

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (100, 177):
        inputs = random_inputs(1, 2, length)
        torch.testing.assert_close(compiled(*inputs, 0.3), attend(*inputs, 0.3))


def test_compiles_under_autocast() -> None:
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mra_attention(query, key, value, **OPTIONS)

    inputs = random_inputs(1, 2, 100, dtype=torch.float32)
    torch.compiler.reset()
    with torch.autocast("cpu", torch.bfloat16):
        actual = torch.compile(attend, fullgraph=True)(*inputs)
        expected = attend(*inputs)
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, expected)


class Attend(torch.nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mra_attention(query, key, value, block_size=16, block_per_row=2, **self.options)


# Below that of the budget, where a call outside of a program takes exact attention, and above.
@pytest.mark.parametrize("example", [20, 100])
@pytest.mark.parametrize("options", [{}, {**CLOSE, "exact_up_to": 20}])
@IMPLS
def test_an_exported_program_takes_any_length(
    impl: str, example: int, options: dict[str, Any]
) -> None:
    tokens = torch.export.Dim("tokens", min=2, max=4096)
    attend = Attend(**options, impl=impl)
    exported = torch.export.export(
        attend, random_inputs(1, 2, example), dynamic_shapes=({2: tokens},) * 3
    )
    for length in (2, 16, 33, 177):
        inputs = random_inputs(1, 2, length)
        torch.testing.assert_close(exported.module()(*inputs), attend(*inputs))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_short_example_is_no_promise_of_short_inputs() -> None:
    traced = torch.jit.trace(Attend(), random_inputs(1, 2, 20))
    for length in (20, 177):
        inputs = random_inputs(1, 2, length)
        torch.testing.assert_close(traced(*inputs), Attend()(*inputs))


def test_types_may_differ_under_autocast_alone() -> None:
    query, key, value = random_inputs(1, 2, 100, dtype=torch.float32)
    mixed = (query, key, value.bfloat16())
    with pytest.raises(TypeError, match="value must have the query's dtype"):
        mra_attention(*mixed, **OPTIONS)
    with torch.autocast("cpu", torch.bfloat16):
        out = mra_attention(*mixed, **OPTIONS)
        with pytest.raises(TypeError, match="int64"):
            mra_attention(query.long(), key, value, **OPTIONS)
    assert torch.equal(out, mra_attention(*(x.bfloat16() for x in mixed), **OPTIONS))


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.vjp])
@IMPLS
def test_transforms_are_refused_in_words(impl: str, transform: Any) -> None:
    query, key, value = random_inputs(1, 2, 50)

    def total(query: Tensor, impl: str) -> Tensor:
        return mra_attention(query, key, value, **{**OPTIONS, "impl": impl}).sum()

    def run_transform(impl: str) -> Any:
        if transform is torch.func.vjp:
            return torch.func.vjp(lambda q: total(q, impl), query)[1](torch.ones(()).double())[0]
        return torch.func.grad(total)(query, impl)

    with pytest.raises(NotImplementedError, match=r'query is inside .*impl="reference" does'):
        run_transform(impl)
    leaf = query.clone().requires_grad_()
    total(leaf, impl).backward()
    torch.testing.assert_close(run_transform("reference"), leaf.grad)


def forward_derivative(attend: Any, inputs: tuple[Tensor, ...], *, dual: bool) -> Tensor:
    tangents = tuple(torch.ones_like(x) for x in inputs)
    if not dual:
        return torch.func.jvp(attend, inputs, tangents)[1]
    with forward_ad.dual_level():
        pairs = (forward_ad.make_dual(*pair) for pair in zip(inputs, tangents, strict=True))
        return forward_ad.unpack_dual(attend(*pairs)).tangent


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("impl", ["auto", *HERE])
def test_forward_mode_is_refused_not_zero(impl: str, dual: bool) -> None:
    inputs = random_inputs(1, 2, 100)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mra_attention(query, key, value, **{**OPTIONS, "impl": impl})

    with pytest.raises(NotImplementedError, match=r"query .*forward-mode.*reference"):
        forward_derivative(attend, inputs, dual=dual)
    plain = attend(*inputs)
    only_value = torch.func.jvp(lambda x: x, (inputs[2],), (inputs[2],))[1]
    assert torch.equal(attend(*inputs[:2], only_value), plain)  # nothing lingers
    with pytest.raises(NotImplementedError, match="value "):
        torch.func.jvp(lambda v: attend(*inputs[:2], v), inputs[2:], inputs[2:])


@pytest.mark.parametrize("dual", [False, True])
def test_forward_mode_of_the_reference(dual: bool) -> None:
    inputs = random_inputs(1, 2, 100)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mra_attention(query, key, value, **{**OPTIONS, "impl": "reference"})

    step = 1e-6
    ahead, behind = (attend(*(x + sign * step for x in inputs)) for sign in (1, -1))
    derivative = forward_derivative(attend, inputs, dual=dual)
    assert relative_error(derivative, (ahead - behind) / (2 * step)) < 1e-6
