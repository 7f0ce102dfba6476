"""MRA attention through xformers' memory_efficient_attention."""

from typing import Any

import pytest
import torch
from torch import Tensor

import mra_plugin
from mra_plugin.ops import mra_attention, preset_options

pytest.importorskip("xformers", reason="xformers has no wheel for this platform")

OPTIONS = {"block_size": 8, "block_per_row": 2}


@pytest.fixture
def attend(recwarn: pytest.WarningsRecorder) -> Any:
    """xformers' function; importing it without its binaries says so on standard error."""
    from xformers.ops import memory_efficient_attention

    return memory_efficient_attention


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def expected(tensors: list[Tensor], **options: Any) -> Tensor:
    out = mra_attention(*(x.transpose(1, 2) for x in tensors), **{**OPTIONS, **options})
    return out.transpose(1, 2)


def assert_same_with_gradients(
    out: Tensor, tensors: list[Tensor], wanted: Tensor, others: list[Tensor]
) -> None:
    torch.testing.assert_close(out, wanted)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    (out * weight).sum().backward()
    (wanted * weight).sum().backward()
    for one, other in zip(tensors, others, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scale", [None, 0.4])
def test_same_as_the_function(attend: Any, dtype: torch.dtype, scale: float | None) -> None:
    tensors, others = inputs(2, 50, 3, 16, dtype=dtype), inputs(2, 50, 3, 16, dtype=dtype)
    op = mra_plugin.xformers_op(**OPTIONS)
    with torch.no_grad():
        torch.testing.assert_close(
            attend(*tensors, op=op, scale=scale), expected(others, scale=scale)
        )
    out = attend(*tensors, op=op, scale=scale)
    assert_same_with_gradients(out, tensors, expected(others, scale=scale), others)


def test_other_lengths_and_channels_of_keys_and_values(attend: Any) -> None:
    (query, _, _), (key, _, _), (value, _, _) = (
        inputs(1, 40, 2, 16),
        inputs(1, 70, 2, 16),
        inputs(1, 70, 2, 24),
    )
    out = attend(query, key, value, op=mra_plugin.xformers_op(**OPTIONS))
    torch.testing.assert_close(out, expected([query, key, value]))


def test_grouped_and_headless_layouts(attend: Any) -> None:
    op = mra_plugin.xformers_op(**OPTIONS)
    grouped, others = inputs(2, 50, 2, 3, 16), inputs(2, 50, 2, 3, 16)
    wanted = expected([x.flatten(2, 3) for x in others]).unflatten(2, (2, 3))
    torch.testing.assert_close(attend(*(x.detach() for x in grouped), op=op), wanted)
    with pytest.raises(ValueError, match="no gradients"):
        attend(*grouped, op=op)
    headless, others = inputs(2, 50, 16), inputs(2, 50, 16)
    wanted = expected([x[:, :, None] for x in others])[:, :, 0]
    assert_same_with_gradients(attend(*headless, op=op), headless, wanted, others)


@pytest.mark.parametrize("lengths", [[30, 7, 30, 1, 50], [118], [0, 59, 59]])
def test_packed_sequences_get_what_they_would_get_alone(attend: Any, lengths: list[int]) -> None:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    tensors, others = inputs(1, 118, 2, 16), inputs(1, 118, 2, 16)
    bias = BlockDiagonalMask.from_seqlens(lengths)
    out = attend(*tensors, attn_bias=bias, op=mra_plugin.xformers_op(**OPTIONS))
    pieces = zip(*(x.split(lengths, 1) for x in others), strict=True)
    wanted = torch.cat([expected(list(piece)) for piece in pieces], 1)
    assert_same_with_gradients(out, tensors, wanted, others)


def test_packed_queries_and_keys_of_different_lengths(attend: Any) -> None:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    query = inputs(1, 60, 2, 16)[0]
    _, key, value = inputs(1, 100, 2, 16)
    bias = BlockDiagonalMask.from_seqlens([20, 40], [70, 30])
    out = attend(query, key, value, attn_bias=bias, op=mra_plugin.xformers_op(**OPTIONS))
    first = expected([query[:, :20], key[:, :70], value[:, :70]])
    second = expected([query[:, 20:], key[:, 70:], value[:, 70:]])
    torch.testing.assert_close(out, torch.cat([first, second], 1))


def test_a_preset_with_options_over_it(attend: Any) -> None:
    """Also packed, where of each sequence it counts how short it is."""
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    tensors, others = inputs(1, 118, 2, 16), inputs(1, 118, 2, 16)
    given = {**OPTIONS, "salient_keys": 3, "coarse_key_size": 2, "exact_up_to": 30}
    whole = {**preset_options("close"), **given}
    op = mra_plugin.xformers_op(preset="close", **given)
    out = attend(*tensors, op=op, attn_bias=BlockDiagonalMask.from_seqlens([30, 80, 8]))
    pieces = list(zip(*(x.split([30, 80, 8], 1) for x in others), strict=True))
    wanted = torch.cat([expected(list(piece), **whole) for piece in pieces], 1)
    exact = expected(list(pieces[0]), block_per_row=99)
    torch.testing.assert_close(out[:, :30], exact, atol=1e-5, rtol=1e-5)
    assert (wanted - expected(others)).abs().max() > 1e-2
    assert_same_with_gradients(out, tensors, wanted, others)


@pytest.mark.parametrize(
    ("queries", "keys", "message"),
    [([30, 20], [30, 21], "beyond the 50 keys, .*51"), ([30, 21], [30, 20], "all 50 queries")],
)
def test_packed_sequences_beyond_what_there_is(
    attend: Any, queries: list[int], keys: list[int], message: str
) -> None:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    bias = BlockDiagonalMask.from_seqlens(queries, keys)
    with pytest.raises(ValueError, match=message):
        attend(*inputs(1, 50, 2, 16), attn_bias=bias, op=mra_plugin.xformers_op(**OPTIONS))


def test_a_second_backward_pass(attend: Any) -> None:
    tensors = inputs(1, 50, 2, 16)
    out = attend(*tensors, op=mra_plugin.xformers_op(**OPTIONS))
    once = torch.autograd.grad(out.sum(), tensors, retain_graph=True)
    twice = torch.autograd.grad(out.sum(), tensors)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"p": 0.1}, "dropout > 0.0"),
        ({"attn_bias": torch.zeros(1, 2, 50, 50)}, "attn_bias type is <class 'torch.Tensor'>"),
        ({"attn_bias": "causal"}, "LowerTriangularMask"),
    ],
)
def test_what_it_cannot_do_it_declares(attend: Any, arguments: dict[str, Any], reason: str) -> None:
    from xformers.ops import LowerTriangularMask

    if arguments.get("attn_bias") == "causal":
        arguments = {"attn_bias": LowerTriangularMask()}
    tensors = inputs(1, 50, 2, 16)
    with pytest.raises(ValueError, match="not supported because") as caught:
        attend(*tensors, **arguments, op=mra_plugin.xformers_op(**OPTIONS))
    assert reason in str(caught.value)


def test_wrong_options_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="block_size"):
        mra_plugin.xformers_op(block_size=7)
    with pytest.raises(ValueError, match='preset must be "paper" or "close", got \'near\''):
        mra_plugin.xformers_op(preset="near")
    with pytest.raises(TypeError, match="blocks_per_row"):
        mra_plugin.xformers_op(blocks_per_row=7)
