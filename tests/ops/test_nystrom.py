"""Nyström attention beside its definition, one sequence at a time in float64."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.attention_calls import padding_mask, random_inputs
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.ops import nystrom_attention, nystrom_attention_weights

LENGTHS = [90, 41, 16, 17, 1, 0, 64]
MASK = padding_mask(LENGTHS, 90)


def segments(tokens: Tensor, landmarks: int) -> Tensor:
    """Means of segments of [n, D], which start at the ceilings of s·n / M."""
    n = len(tokens)
    starts = [-(-s * n // landmarks) for s in range(landmarks + 1)]
    return torch.stack([tokens[a:b].mean(0) for a, b in pairwise(starts) if a < b])


def inverse_by_iteration(matrix: Tensor, iterations: int, start: str) -> Tensor:
    """[H, M, M]; all heads of a sequence start from the same bound, or each from its own."""
    bounds = matrix.sum(1).amax(1)[:, None, None]
    z = matrix.mT / (bounds.max() if start == "sequence" else bounds)
    one = torch.eye(matrix.shape[-2], dtype=matrix.dtype)
    for _ in range(iterations):
        az = matrix @ z
        z = z @ (13 * one - az @ (15 * one - az @ (7 * one - az))) / 4
    return z


def one_sequence(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    landmarks: int,
    iterations: int | None,
    scale: float,
    start: str,
) -> Tensor:
    """Without padding: [H, n, D] each; ``None`` inverts by singular values."""
    if key.shape[1] <= landmarks:
        return (scale * query @ key.mT).softmax(-1) @ value
    query_marks = torch.stack([segments(head, landmarks) for head in query])
    key_marks = torch.stack([segments(head, landmarks) for head in key])
    middle = (scale * query_marks @ key_marks.mT).softmax(-1)
    if iterations is None:
        inverse = torch.linalg.pinv(middle)
    else:
        inverse = inverse_by_iteration(middle, iterations, start)
    first = (scale * query @ key_marks.mT).softmax(-1)
    last = (scale * query_marks @ key.mT).softmax(-1)
    return first @ inverse @ last @ value


def definition(
    inputs: tuple[Tensor, Tensor, Tensor],
    key_mask: Tensor,
    query_mask: Tensor,
    landmarks: int = 16,
    iterations: int | None = 6,
    scale: float = 0.25,
    start: str = "sequence",
) -> Tensor:
    query, key, value = inputs
    out = query.new_zeros(*query.shape[:3], value.shape[-1])
    for b in range(query.shape[0]):
        rows, columns = query_mask[b], key_mask[b]
        if not columns.any() or not rows.any():
            continue
        out[b, :, rows] = one_sequence(
            query[b, :, rows], key[b, :, columns], value[b, :, columns],
            landmarks, iterations, scale, start,
        )  # fmt: skip
    return out


@pytest.mark.parametrize("side", ["right", "left", "holes"])
@pytest.mark.parametrize("iterations", [1, 6])
def test_definition(side: str, iterations: int) -> None:
    inputs = random_inputs(7, 2, 90, value_channels=5)
    mask = MASK
    if side == "left":
        mask = MASK.flip(1)
    elif side == "holes":
        mask = torch.rand(7, 90, generator=torch.Generator().manual_seed(0)) < 0.6
    out = nystrom_attention(*inputs, mask, mask, num_landmarks=16, pinv_iterations=iterations)
    expected = definition(inputs, mask, mask, iterations=iterations)
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-8)
    assert torch.all(out.transpose(1, 2)[~mask] == 0)
    served = nystrom_attention(*inputs, mask, num_landmarks=16, pinv_iterations=iterations)
    torch.testing.assert_close(served.transpose(1, 2)[mask], out.transpose(1, 2)[mask])


def test_each_head_from_its_own_start() -> None:
    inputs = random_inputs(7, 2, 90)
    options = {"num_landmarks": 16, "pinv_iterations": 2}
    out = nystrom_attention(*inputs, MASK, MASK, **options, pinv_start="head")
    expected = definition(inputs, MASK, MASK, iterations=2, start="head")
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-8)
    assert not torch.allclose(out, nystrom_attention(*inputs, MASK, MASK, **options), rtol=1e-3)
    weights = nystrom_attention_weights(*inputs[:2], MASK, MASK, **options, pinv_start="head")
    torch.testing.assert_close(weights @ inputs[2], out)


def test_without_a_mask_and_with_a_scale() -> None:
    for length in (17, 64, 90):
        inputs = random_inputs(2, 2, length)
        everything = torch.ones(2, length, dtype=torch.bool)
        out = nystrom_attention(*inputs, num_landmarks=16, scale=0.1)
        expected = definition(inputs, everything, everything, scale=0.1)
        torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("query_length", [1, 9, 16, 50])
def test_queries_of_another_sequence(query_length: int) -> None:
    inputs = random_inputs(7, 2, query_length, 90)
    query_mask = torch.ones(7, query_length, dtype=torch.bool)
    out = nystrom_attention(*inputs, MASK, num_landmarks=16)
    expected = definition(inputs, MASK, query_mask)
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-8)
    query_mask[:, query_length // 2 :] = False
    out = nystrom_attention(*inputs, MASK, query_mask, num_landmarks=16)
    expected = definition(inputs, MASK, query_mask)
    torch.testing.assert_close(out, expected, atol=1e-10, rtol=1e-8)


def test_many_iterations_are_the_pseudo_inverse() -> None:
    query, _, value = random_inputs(2, 2, 90)
    inputs = (3 * query, 3 * query, value)
    everything = torch.ones(2, 90, dtype=torch.bool)
    out = nystrom_attention(*inputs, num_landmarks=8, pinv_iterations=40)
    expected = definition(inputs, everything, everything, 8, None)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("landmarks", [90, 91, 64])
def test_no_more_real_tokens_than_landmarks_is_exact(landmarks: int) -> None:
    inputs = random_inputs(2, 2, 90)
    mask = padding_mask([min(landmarks, 90), 1], 90)
    out = nystrom_attention(*inputs, mask, num_landmarks=landmarks)
    for row, length in enumerate(mask.sum(-1)):
        exact = scaled_dot_product_attention(*(x[row, :, :length] for x in inputs))
        torch.testing.assert_close(out[row, :, :length], exact)


def test_neither_padding_nor_the_batch_changes_a_result() -> None:
    query, key, value = random_inputs(1, 2, 70)
    alone = nystrom_attention(query, key, value, num_landmarks=16)
    for longest in (71, 90, 256):
        garbage = torch.full((1, 2, longest - 70, 16), float("nan"), dtype=query.dtype)
        padded = [torch.cat([x, garbage], 2) for x in (query, key, value)]
        # A neighbour with sharp attention has other norms.
        beside = [
            torch.cat([x, 5 * y]) for x, y in zip(padded, random_inputs(1, 2, longest), strict=True)
        ]
        mask = padding_mask([70, longest], longest)
        out = nystrom_attention(*beside, mask, num_landmarks=16)
        torch.testing.assert_close(out[:1, :, :70], alone)


def test_queries_at_padding_are_served() -> None:
    query, key, value = random_inputs(2, 2, 70)
    mask = padding_mask([70, 41], 70)
    out = nystrom_attention(query, key, value, mask, num_landmarks=99)
    exact = scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
    torch.testing.assert_close(out, exact)
    few = nystrom_attention(query, key, value, mask, num_landmarks=8)
    assert few[1, :, 41:].abs().amin(-1).gt(0).all()


@pytest.mark.parametrize("landmarks", [4, 8, 99])
@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_the_matrix_of_the_attention(landmarks: int, masked: bool) -> None:
    query, key, value = random_inputs(2, 2, 40, 50)
    mask = padding_mask([50, 6], 50) if masked else None
    queries = padding_mask([33, 40], 40) if masked else None
    masks = (mask, queries)
    weights = nystrom_attention_weights(query, key, *masks, num_landmarks=landmarks)
    out = nystrom_attention(query, key, value, *masks, num_landmarks=landmarks)
    torch.testing.assert_close(weights @ value, out)
    if masked:
        assert torch.all(weights[1, :, :, 6:] == 0)
        assert torch.all(weights[0, :, 33:] == 0)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients(masked: bool) -> None:
    inputs = [x.requires_grad_() for x in random_inputs(3, 1, 12, channels=3)]
    mask = padding_mask([12, 4, 0], 12) if masked else None

    def attend(*tensors: Tensor) -> Tensor:
        return nystrom_attention(*tensors, mask, num_landmarks=5)

    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_the_definition(masked: bool) -> None:
    lengths = [90, 41] if masked else [90, 90]
    mask = padding_mask(lengths, 90)
    gradients = []
    masks = (mask, mask) if masked else ()
    for attend in (
        lambda *x: nystrom_attention(*x, *masks, num_landmarks=16),
        lambda *x: definition(x, mask, mask),
    ):
        leaves = [x.requires_grad_() for x in random_inputs(2, 2, 90)]
        attend(*leaves).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=1e-7)


def test_nothing_real_gives_zeros_and_zero_gradients() -> None:
    inputs = [x.requires_grad_() for x in random_inputs(2, 2, 40)]
    out = nystrom_attention(*inputs, torch.zeros(2, 40, dtype=torch.bool), num_landmarks=8)
    out.sum().backward()
    assert torch.all(out == 0)
    assert all(torch.all(x.grad == 0) for x in inputs)


def test_empty_inputs() -> None:
    for batch, queries, keys in ((0, 70, 70), (1, 0, 0), (1, 0, 70), (1, 5, 0)):
        query, key = torch.zeros(batch, 2, queries, 4), torch.zeros(batch, 2, keys, 4)
        out = nystrom_attention(query, key, key, num_landmarks=8)
        assert out.shape == (batch, 2, queries, 4)
        assert torch.all(out == 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    inputs = random_inputs(2, 2, 90, dtype=dtype)
    out = nystrom_attention(*inputs, num_landmarks=16)
    wide = nystrom_attention(*(x.float() for x in inputs), num_landmarks=16)
    assert out.dtype == dtype
    assert torch.equal(out, wide.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        floats = random_inputs(2, 2, 90, dtype=torch.float32)
        cast = nystrom_attention(*floats, num_landmarks=16)
    assert cast.dtype == torch.bfloat16
    assert torch.equal(cast, nystrom_attention(*(x.bfloat16() for x in floats), num_landmarks=16))


@pytest.mark.parametrize("iterations", [6, 30, 200])
def test_singular_matrices_do_not_blow_up(iterations: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 1, 200, 8, generator=generator)
    same = query[:, :, :1].expand_as(query)
    for q, k in ((query, same), (same, query), (same, same), (0.1 * query, 0.1 * query)):
        leaves = [x.clone().requires_grad_() for x in (q, k, query)]
        out = nystrom_attention(*leaves, num_landmarks=16, pinv_iterations=iterations)
        out.sum().backward()
        exact = scaled_dot_product_attention(q, k, query)
        torch.testing.assert_close(out, exact, atol=0.1, rtol=0)
        assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_large_logits_stay_finite() -> None:
    inputs = [x.mul(60).float().detach().requires_grad_() for x in random_inputs(1, 2, 64)]
    out = nystrom_attention(*inputs, num_landmarks=16)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_compiles_whole_and_once_for_every_length(masked: bool) -> None:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return 2 * nystrom_attention(query, key, value, mask, num_landmarks=8, pinv_iterations=2)

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (100, 128, 333):
            results = []
            for call in (compiled, attend):
                inputs = [x.requires_grad_() for x in random_inputs(2, 2, length)]
                mask = padding_mask([length, length // 2], length) if masked else None
                out = call(*inputs, mask)
                out.square().sum().backward()
                results.append([out.detach(), *(x.grad for x in inputs)])
            torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"num_landmarks": 0}, ValueError, ["num_landmarks", "0"]),
        ({"num_landmarks": 8.0}, TypeError, ["num_landmarks", "8.0"]),
        ({"pinv_iterations": 0}, ValueError, ["pinv_iterations", "0"]),
        ({"pinv_iterations": True}, TypeError, ["pinv_iterations", "True"]),
        ({"scale": -1.0}, ValueError, ["scale", "-1.0"]),
        ({"query": torch.zeros(3, 8, 4)}, ValueError, ["query", "(3, 8, 4)"]),
        ({"key": torch.zeros(2, 3, 8, 5)}, ValueError, ["key", "(2, 3, 8, 5)"]),
        ({"key_padding_mask": torch.zeros(2, 8)}, TypeError, ["key_padding_mask", "bool"]),
        (
            {"key_padding_mask": torch.zeros(2, 9, dtype=torch.bool)},
            ValueError,
            ["key_padding_mask", "(2, 9)"],
        ),
    ],
)
def test_refused(change: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    good = {name: torch.zeros(2, 3, 8, 4) for name in ("query", "key", "value")}
    with pytest.raises(error) as caught:
        nystrom_attention(**{**good, **change})
    assert all(word in str(caught.value) for word in words), str(caught.value)
    del good["value"]
    with pytest.raises(error):
        nystrom_attention_weights(**{**good, **change})
