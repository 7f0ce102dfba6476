"""What the preset "close" adds, by kernels in Triton's interpreter, against the reference."""

from typing import Any

import pytest
import torch
from helpers.attention_calls import padding_mask, random_inputs, run
from helpers.interpreted import LIMITS, compare

from mra_plugin.ops import MRAOptions, mra_attention
from mra_plugin.ops.operator_pair import arguments
from mra_plugin.ops.triton import choosing, lists, operators, salient

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("_interpreter")]

CLOSE: dict[str, Any] = {
    "block_size": 16,
    "block_per_row": 2,
    "coarse_key_size": 4,
    "salient_keys": 5,
    "block_score": "mass",
    "selection": "per_row",
}
SPARSE = {**CLOSE, "approx_mode": "sparse"}
MODES = pytest.mark.parametrize("options", [CLOSE, SPARSE], ids=["full", "sparse"])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize(
    "options",
    [CLOSE, {**SPARSE, "selection": "global"}, {**CLOSE, "selection": "global", "num_blocks": 7}],
    ids=["close", "sparse", "global"],
)
def test_types(dtype: torch.dtype, options: dict[str, Any]) -> None:
    compare(random_inputs(1, 2, 70, 90, dtype=dtype), padding_mask([81], 90), **options)


@pytest.mark.parametrize("options", [
    {"coarse_key_size": 2},
    {"block_score": "mass"},
    {"salient_keys": 3},
    {"salient_keys": 17, "block_score": "mass", "initial_prior_diagonal_n_blocks": 2},
    {"salient_keys": 40, "coarse_key_size": 1, "initial_prior_first_n_blocks": 1},
    # More than there are: exact attention.
    {"salient_keys": 80, "block_score": "mass", "num_blocks": 3},
    {"exact_up_to": 77},
])  # fmt: skip
def test_each_by_itself(options: dict[str, Any]) -> None:
    inputs = random_inputs(1, 2, 50, 77, dtype=torch.float32)
    compare(inputs, **({"block_size": 16, "block_per_row": 1} | options))


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((70, 33, 24, 40), {"block_size": 32, "coarse_key_size": 16}),
        ((31, 130, 80, 66), {"block_size": 64, "salient_keys": 20}),
        ((1, 1, 16, 16), {}),
    ],
)
def test_shapes(sizes: tuple[int, int, int, int], options: dict[str, Any]) -> None:
    compare(random_inputs(1, 2, *sizes, dtype=torch.float32), **(CLOSE | options))


def test_masks_with_holes_and_short_sequences() -> None:
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(3, 66, generator=generator) < 0.7
    mask[1, :30] = False  # shorter than what is exact as a whole
    mask[2] = False
    other = torch.rand(3, 66, generator=generator) < 0.7
    inputs = random_inputs(3, 1, 66, dtype=torch.float32)
    short = {"block_per_row": 1, "exact_up_to": 30}
    assert mask[:2].sum(-1).gt(30).tolist() == [True, False]
    # Queries at padding are served by a pass of their own.
    compare(inputs, mask, **(CLOSE | short))
    compare(inputs, mask, other, **(SPARSE | short))
    compare(inputs, None, other, **(CLOSE | short))


def test_long_work_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "_TOKENS_PER_ITEM", 16)
    monkeypatch.setattr(salient, "_CHUNK", 32)
    inputs = random_inputs(2, 1, 41, 61, dtype=torch.float32)
    masks = padding_mask([61, 32], 61), padding_mask([32, 41], 41)
    compare(inputs, *masks, **CLOSE, exact_up_to=40)


def test_heads_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_RANK_BYTES", 1)
    inputs = random_inputs(2, 2, 40, dtype=torch.float32)
    mask = padding_mask([40, 33], 40)
    compare(inputs, mask, mask, **CLOSE)


@MODES
@pytest.mark.parametrize("lengths", [(0, 20, 20), (2, 0, 0), (2, 20, 0)])
def test_nothing_to_do(options: dict[str, Any], lengths: tuple[int, int, int]) -> None:
    batch, query_length, key_length = lengths
    inputs = random_inputs(batch, 2, query_length, key_length, dtype=torch.float32)
    leaves = [x.requires_grad_() for x in inputs]
    out = mra_attention(*leaves, **options, exact_up_to=9, impl="triton")
    out.sum().backward()
    assert out.shape == (batch, 2, query_length, 16)
    assert all(torch.all(x == 0) for x in (out, *(leaf.grad for leaf in leaves)))


@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_in_the_thousands_stay_finite(options: dict[str, Any], dtype: torch.dtype) -> None:
    inputs = [x.detach().mul(60).to(dtype).requires_grad_() for x in random_inputs(1, 1, 64)]
    out = mra_attention(*inputs, **options, impl="triton")
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


def test_what_peaked_attention_leaves_over_is_not_lost() -> None:
    """One query of a block looks away from what the block's mean sees almost alone."""
    query, key, value = random_inputs(1, 1, 64)
    key[:, :, :16, 0] += 40
    query[..., 0] = 12
    query[:, :, 3, 0] = -40
    inputs = tuple(x.to(torch.float32) for x in (query, key, value))
    # Scores of some hundreds leave a float32 five digits.
    limits = {torch.float32: 1e-4}
    compare(inputs, limits=limits, **(CLOSE | {"block_per_row": 1, "salient_keys": 0}))
    compare(inputs, limits=limits, **CLOSE)


def test_two_runs_agree_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salient, "_CHUNK", 32)
    inputs = random_inputs(1, 2, 70, dtype=torch.float32)
    first, second = (run(inputs, **CLOSE, impl="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_whatever_stands_at_padding_reaches_no_real_token() -> None:
    mask = padding_mask([40, 61], 70)
    results = []
    for filling in (0.0, float("nan")):
        leaves = [
            x.masked_fill(~mask[:, None, :, None], filling).requires_grad_()
            for x in random_inputs(2, 1, 70, dtype=torch.float32)
        ]
        out = mra_attention(*leaves, mask, mask, **CLOSE, exact_up_to=50, impl="triton")
        cotangent = torch.ones_like(out).masked_fill(~mask[:, None, :, None], filling)
        results.append((out.detach(), *torch.autograd.grad(out, leaves, cotangent)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@MODES
@pytest.mark.parametrize("which", [0, 1, 2])
def test_not_a_number_in_a_real_token_comes_out(options: dict[str, Any], which: int) -> None:
    inputs = random_inputs(1, 1, 50, dtype=torch.float32)
    inputs[which][:, :, 20] = float("nan")
    leaves = [x.requires_grad_() for x in inputs]
    out = mra_attention(*leaves, **(options | {"block_per_row": 1}), impl="triton")
    out.sum().backward()
    assert out[:, :, 20].isnan().all()
    if which:
        assert out.isnan().all()
    else:  # its block alone
        assert not out[:, :, :16].isnan().any()
    assert any(leaf.grad.isnan().any() for leaf in leaves)


def test_not_a_number_in_a_salient_value_comes_out() -> None:
    query, key, value = random_inputs(1, 1, 50, dtype=torch.float32)
    key[:, :, 20] = 30 * query.mean(2)
    value[:, :, 20] = float("nan")
    leaves = [x.requires_grad_() for x in (query, key, value)]
    out = mra_attention(*leaves, block_size=16, block_per_row=1, salient_keys=1, impl="triton")
    out.sum().backward()
    assert out.isnan().all()
    assert all(leaf.grad.isnan().any() for leaf in leaves[:2])


def test_operators_are_well_behaved() -> None:
    inputs = [x.requires_grad_() for x in random_inputs(1, 1, 20, 33, dtype=torch.float32)]
    tensors = (*inputs, padding_mask([29], 33), None)
    settings = arguments(MRAOptions(**CLOSE, exact_up_to=5), 0.3)
    torch.library.opcheck(operators.operators.forward, (*tensors, *settings))
    results = [x.detach() for x in operators.operators.forward(*tensors, *settings)]
    saved = [None if x is None else x.detach() for x in tensors]
    grad_out = torch.randn_like(results[0])
    torch.library.opcheck(
        operators.operators.backward, (grad_out, None, *results, *saved, *settings)
    )
