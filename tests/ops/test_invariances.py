"""What must not change the result, and what the result must equal."""

import pytest
import torch
from helpers.agreement import HERE
from helpers.attention_calls import padding_mask, random_inputs
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.ops import mra_attention

IMPLS = pytest.mark.parametrize("impl", ["reference", *HERE])
MODES = pytest.mark.parametrize("approx_mode", ["full", "sparse"])


@IMPLS
@MODES
def test_more_padding_changes_no_real_token(impl: str, approx_mode: str) -> None:
    query, key, value = random_inputs(1, 2, 70)
    options = {"block_size": 8, "block_per_row": 2, "approx_mode": approx_mode, "impl": impl}
    alone = mra_attention(query, key, value, **options)
    for longest in (71, 72, 100, 256):
        garbage = [
            torch.cat([x, 9 * torch.randn(1, 2, longest - 70, 16, dtype=x.dtype)], 2)
            for x in (query, key, value)
        ]
        padded = mra_attention(*garbage, padding_mask([70], longest), **options)
        torch.testing.assert_close(padded[:, :, :70], alone)
        assert torch.all(padded[:, :, 70:] == 0)


@IMPLS
@MODES
@pytest.mark.parametrize("selection", ["global", "per_row"])
def test_the_rest_of_the_batch_changes_nothing(impl: str, approx_mode: str, selection: str) -> None:
    lengths = [90, 41, 1, 0, 64]
    inputs = random_inputs(5, 2, 90)
    options = {
        "block_size": 16,
        "block_per_row": 2,
        "approx_mode": approx_mode,
        "selection": selection,
        "impl": impl,
    }
    together = mra_attention(*inputs, padding_mask(lengths, 90), **options)
    for row, length in enumerate(lengths):
        if length:
            alone = mra_attention(*(x[row : row + 1, :, :length] for x in inputs), **options)
            torch.testing.assert_close(together[row : row + 1, :, :length], alone)
        assert torch.all(together[row, :, length:] == 0)


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
     {"block_per_row": 12, "selection": "per_row"}],
)  # fmt: skip
def test_full_budget_is_exact_attention(
    impl: str, approx_mode: str, budget: dict[str, int | str], return_lse: bool
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
        approx_mode=approx_mode,
        return_lse=return_lse,
        impl=impl,
        **budget,
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
@pytest.mark.parametrize("budget", [2, 99])
def test_nothing_real_gives_zeros_and_zero_gradients(impl: str, budget: int) -> None:
    inputs = [x.requires_grad_() for x in random_inputs(2, 2, 40)]
    mask = torch.zeros(2, 40, dtype=torch.bool)
    out = mra_attention(*inputs, mask, block_size=8, block_per_row=budget, impl=impl)
    out.sum().backward()
    assert torch.all(out == 0)
    assert all(torch.all(x.grad == 0) for x in inputs)


@IMPLS
@pytest.mark.parametrize("budget", [1, 99])
def test_empty_batch_and_single_token(impl: str, budget: int) -> None:
    empty = torch.zeros(0, 2, 20, 4)
    out = mra_attention(empty, empty, empty, block_size=8, block_per_row=budget, impl=impl)
    assert out.shape == (0, 2, 20, 4)
    nothing = torch.zeros(1, 2, 0, 4, requires_grad=True)
    for return_lse in (False, True):
        result = mra_attention(
            nothing, nothing, nothing, block_per_row=budget, return_lse=return_lse, impl=impl
        )
        out = result[0] if return_lse else result
        assert out.shape == (1, 2, 0, 4)
        out.sum().backward()
    some = torch.ones(1, 2, 5, 4, requires_grad=True)
    out = mra_attention(some, nothing, nothing, block_per_row=budget, impl=impl)
    out.sum().backward()
    assert torch.all(out == 0)
    assert torch.all(some.grad == 0)
    query, key, value = random_inputs(1, 2, 1)
    out = mra_attention(query, key, value, block_per_row=budget, impl=impl)
    torch.testing.assert_close(out, value)


@IMPLS
@MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("budget", [1, 2, 99])
def test_logits_in_the_thousands_stay_finite(
    impl: str, approx_mode: str, dtype: torch.dtype, budget: int
) -> None:
    inputs = [x.detach().mul(60).to(dtype).requires_grad_() for x in random_inputs(1, 2, 64)]
    logits = inputs[0].float() @ inputs[1].float().transpose(-1, -2) / 4
    assert logits.abs().max() > 4000
    out = mra_attention(
        *inputs, block_size=8, block_per_row=budget, approx_mode=approx_mode, impl=impl
    )
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(x.grad).all() for x in inputs)
