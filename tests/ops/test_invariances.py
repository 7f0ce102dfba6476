"""What must not change the result, and what the result must equal."""

from typing import Any

import pytest
import torch
from helpers.agreement import HERE
from helpers.attention_calls import padding_mask, random_inputs
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.ops import mra_attention

CLOSE = {"coarse_key_size": 4, "salient_keys": 5, "block_score": "mass", "exact_up_to": 9}
IMPLS = pytest.mark.parametrize("impl", ["reference", *HERE])
# The two modes of the paper, and the additions at once.
MODES = pytest.mark.parametrize(
    "mode",
    [
        pytest.param({}, id="full"),
        pytest.param({"approx_mode": "sparse"}, id="sparse"),
        pytest.param(CLOSE, id="close"),
    ],
)


@IMPLS
@MODES
def test_more_padding_changes_no_real_token(impl: str, mode: dict[str, Any]) -> None:
    query, key, value = random_inputs(1, 2, 70)
    options = {"block_size": 8, "block_per_row": 2, **mode, "impl": impl}
    alone = mra_attention(query, key, value, **options)
    for longest in (71, 72, 100, 256):
        garbage = [
            torch.cat([x, 9 * torch.randn(1, 2, longest - 70, 16, dtype=x.dtype)], 2)
            for x in (query, key, value)
        ]
        mask = padding_mask([70], longest)
        padded = mra_attention(*garbage, mask, **options)
        torch.testing.assert_close(padded[:, :, :70], alone)
        unserved = mra_attention(*garbage, mask, mask, **options)
        torch.testing.assert_close(unserved[:, :, :70], alone)
        assert torch.all(unserved[:, :, 70:] == 0)


@IMPLS
@MODES
@pytest.mark.parametrize("selection", ["global", "per_row"])
def test_where_padding_lies_and_what_it_holds_changes_no_real_token(
    impl: str, mode: dict[str, Any], selection: str
) -> None:
    query, key, value = random_inputs(1, 2, 70)
    options = {
        "block_size": 8,
        "block_per_row": 2,
        **mode,
        "selection": selection,
        "impl": impl,
    }
    alone = mra_attention(query, key, value, **options)
    spread = torch.randperm(99, generator=torch.Generator().manual_seed(0))[:70].sort().values
    for at in (torch.arange(29, 99), torch.arange(70), spread):
        mask = torch.zeros(1, 99, dtype=torch.bool)
        mask[:, at] = True
        leaves = []
        for x in (query, key, value):
            whole = torch.full((1, 2, 99, 16), float("nan"), dtype=x.dtype)
            whole[:, :, at] = x
            leaves.append(whole.requires_grad_())
        out = mra_attention(*leaves, mask, mask, **options)
        torch.testing.assert_close(out[:, :, at], alone)
        out.sum().backward()
        assert all(torch.isfinite(leaf.grad[:, :, at]).all() for leaf in leaves)


@IMPLS
@MODES
def test_queries_at_padding_are_served_and_change_nothing(impl: str, mode: dict[str, Any]) -> None:
    query, key, value = random_inputs(3, 2, 75)
    mask = padding_mask([75, 41, 8], 75)
    mask[2] = mask[2].flip(0)
    options = {"block_size": 8, **mode, "impl": impl}
    few = {**options, "block_per_row": 2}
    served = mra_attention(query, key, value, mask, **few)
    unserved = mra_attention(query, key, value, mask, mask, **few)
    torch.testing.assert_close(served.transpose(1, 2)[mask], unserved.transpose(1, 2)[mask])
    assert served.transpose(1, 2)[~mask].abs().amin(-1).gt(0).all()
    exact = scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
    for budget in ({"block_per_row": 10}, {"num_blocks": 100}):
        full = mra_attention(query, key, value, mask, **options, **budget, return_lse=True)[0]
        torch.testing.assert_close(full, exact)


@IMPLS
@MODES
@pytest.mark.parametrize("which", [0, 1, 2])
def test_not_a_number_in_a_real_token_comes_out(
    impl: str, mode: dict[str, Any], which: int
) -> None:
    inputs = list(random_inputs(1, 2, 70))
    inputs[which] = inputs[which].clone()
    inputs[which][:, :, 33] = float("nan")
    leaves = [x.requires_grad_() for x in inputs]
    options = {"block_size": 8, "block_per_row": 1, **mode, "impl": impl}
    out = mra_attention(*leaves, **options)
    out.sum().backward()
    assert out[:, :, 33].isnan().all()
    assert any(leaf.grad.isnan().any() for leaf in leaves)
    if which:
        assert out.isnan().all()
    else:  # its block alone
        assert not out[:, :, :32].isnan().any()


@IMPLS
@MODES
@pytest.mark.parametrize("selection", ["global", "per_row"])
def test_the_rest_of_the_batch_changes_nothing(
    impl: str, mode: dict[str, Any], selection: str
) -> None:
    lengths = [90, 41, 1, 0, 64]
    inputs = random_inputs(5, 2, 90)
    options = {
        "block_size": 16,
        "block_per_row": 2,
        **mode,
        "selection": selection,
        "impl": impl,
    }
    together = mra_attention(*inputs, padding_mask(lengths, 90), **options)
    for row, length in enumerate(lengths):
        if length:
            alone = mra_attention(*(x[row : row + 1, :, :length] for x in inputs), **options)
            torch.testing.assert_close(together[row : row + 1, :, :length], alone)
        else:
            assert torch.all(together[row] == 0)


@IMPLS
def test_heads_commute(impl: str) -> None:
    inputs = random_inputs(2, 4, 75)
    order = torch.tensor([2, 0, 3, 1])
    options = {"block_size": 8, "block_per_row": 2, "impl": impl}
    out = mra_attention(*inputs, **options)
    permuted = mra_attention(*(x[:, order] for x in inputs), **options)
    torch.testing.assert_close(permuted, out[:, order])


@IMPLS
@MODES
@pytest.mark.parametrize("return_lse", [False, True])
@pytest.mark.parametrize(
    "budget",
    [{"block_per_row": 12}, {"block_per_row": 99}, {"num_blocks": 12 * 10},
     {"block_per_row": 12, "selection": "per_row"},
     {"block_per_row": 1, "salient_keys": 90}, {"block_per_row": 1, "exact_up_to": 90}],
)  # fmt: skip
def test_full_budget_is_exact_attention(
    impl: str, mode: dict[str, Any], budget: dict[str, int | str], return_lse: bool
) -> None:
    query, key, value = random_inputs(3, 2, 75, 90)
    lengths = [90, 37, 0]
    mask = padding_mask(lengths, 90)
    result = mra_attention(
        query,
        key,
        value,
        mask,
        block_size=8,
        return_lse=return_lse,
        impl=impl,
        **{**mode, **budget},
    )
    out = result[0] if return_lse else result
    for row, length in enumerate(lengths[:2]):
        k, v = key[row, :, :length], value[row, :, :length]
        torch.testing.assert_close(out[row], scaled_dot_product_attention(query[row], k, v))
        if return_lse:
            scores = query[row] @ k.transpose(-1, -2) / 4
            torch.testing.assert_close(result[1][row], scores.logsumexp(-1))
    assert torch.all(out[2] == 0)


@IMPLS
@MODES
@pytest.mark.parametrize("budget", [2, 99])
def test_nothing_real_gives_zeros_and_zero_gradients(
    impl: str, mode: dict[str, Any], budget: int
) -> None:
    inputs = [x.requires_grad_() for x in random_inputs(2, 2, 40)]
    mask = torch.zeros(2, 40, dtype=torch.bool)
    out = mra_attention(*inputs, mask, block_size=8, block_per_row=budget, **mode, impl=impl)
    out.sum().backward()
    assert torch.all(out == 0)
    assert all(torch.all(x.grad == 0) for x in inputs)


@IMPLS
@MODES
@pytest.mark.parametrize("budget", [1, 99])
def test_empty_batch_and_single_token(impl: str, mode: dict[str, Any], budget: int) -> None:
    empty = torch.zeros(0, 2, 20, 4)
    options = {"block_per_row": budget, **mode, "impl": impl}
    out = mra_attention(empty, empty, empty, block_size=8, **options)
    assert out.shape == (0, 2, 20, 4)
    nothing = torch.zeros(1, 2, 0, 4, requires_grad=True)
    for return_lse in (False, True):
        result = mra_attention(nothing, nothing, nothing, return_lse=return_lse, **options)
        out = result[0] if return_lse else result
        assert out.shape == (1, 2, 0, 4)
        out.sum().backward()
    some = torch.ones(1, 2, 5, 4, requires_grad=True)
    out = mra_attention(some, nothing, nothing, **options)
    out.sum().backward()
    assert torch.all(out == 0)
    assert torch.all(some.grad == 0)
    for batch, heads in ((2, 0), (0, 0)):
        x = torch.zeros(batch, heads, 100, 8, requires_grad=True)
        out = mra_attention(x, x, x, block_size=8, **options)
        assert out.shape == x.shape
        out.sum().backward()
    query, key, value = random_inputs(1, 2, 1)
    out = mra_attention(query, key, value, **options)
    torch.testing.assert_close(out, value)


@IMPLS
@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("budget", [1, 2, 99])
def test_logits_in_the_thousands_stay_finite(
    impl: str, mode: dict[str, Any], dtype: torch.dtype, budget: int
) -> None:
    inputs = [x.detach().mul(60).to(dtype).requires_grad_() for x in random_inputs(1, 2, 64)]
    logits = inputs[0].float() @ inputs[1].float().transpose(-1, -2) / 4
    assert logits.abs().max() > 4000
    out = mra_attention(*inputs, block_size=8, block_per_row=budget, **mode, impl=impl)
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(x.grad).all() for x in inputs)
