"""Every implementation against the reference in float64: outputs and all gradients.

Those of the table that run on this machine; a new row is tested by being there.
"""

from typing import Any

import pytest
import torch
from helpers.agreement import HERE, LIMITS, compare
from helpers.attention_calls import padding_mask, random_inputs, run
from hypothesis import given, settings
from hypothesis import strategies as st

from mra_plugin.ops import mra_attention

pytestmark = pytest.mark.parametrize("impl", HERE)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("selection", ["global", "per_row"])
@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
def test_types(impl: str, dtype: torch.dtype, selection: str, approx_mode: str) -> None:
    inputs = random_inputs(2, 2, 150, dtype=dtype)
    compare(
        impl,
        inputs,
        padding_mask([150, 77], 150),
        block_size=16,
        block_per_row=2,
        selection=selection,
        approx_mode=approx_mode,
    )


CLOSE = {
    "block_per_row": 2,
    "coarse_key_size": 4,
    "salient_keys": 5,
    "block_score": "mass",
    "selection": "per_row",
}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
def test_types_with_cells_and_salient_keys(impl: str, dtype: torch.dtype, approx_mode: str) -> None:
    inputs = random_inputs(3, 2, 150, dtype=dtype)
    mask = padding_mask([150, 77, 30], 150)
    compare(impl, inputs, mask, block_size=16, approx_mode=approx_mode, **CLOSE, exact_up_to=40)


@pytest.mark.parametrize(
    ("query_length", "key_length", "channels", "value_channels"),
    [
        (64, 64, 8, 8),
        (65, 33, 16, 16),
        (31, 130, 5, 9),
        (130, 31, 12, 3),
        (1, 1, 1, 1),
        (7, 7, 33, 40),
        (1, 300, 16, 16),
    ],
)
@pytest.mark.parametrize("block_size", [8, 16, 128])
def test_shapes(
    impl: str,
    query_length: int,
    key_length: int,
    channels: int,
    value_channels: int,
    block_size: int,
) -> None:
    inputs = random_inputs(2, 3, query_length, key_length, channels, value_channels)
    compare(impl, inputs, block_size=block_size, block_per_row=1)
    compare(impl, inputs, block_size=block_size, num_blocks=3, approx_mode="sparse")
    compare(impl, inputs, block_size=block_size, **CLOSE)


@pytest.mark.parametrize("options", [
    {"initial_prior_first_n_blocks": 2},
    {"initial_prior_diagonal_n_blocks": 3},
    {"initial_prior_first_n_blocks": 1, "initial_prior_diagonal_n_blocks": 1},
    {"scale": 0.7},
    {"num_blocks": 1},
    {"num_blocks": 60},
    {"coarse_key_size": 2},
    {"block_score": "mass"},
    {"salient_keys": 7},
    {"salient_keys": 96},
    {"num_blocks": 9, "salient_keys": 30, "block_score": "mass", "initial_prior_first_n_blocks": 1},
])  # fmt: skip
def test_options(impl: str, options: dict[str, Any]) -> None:
    compare(impl, random_inputs(1, 2, 96), block_size=8, **options)


def test_masks_with_holes(impl: str) -> None:
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(3, 100, generator=generator) < 0.4
    mask[1, :48] = False  # whole blocks without a token, in front
    other = torch.rand(3, 100, generator=generator) < 0.7
    inputs = random_inputs(3, 2, 100)
    compare(impl, inputs, mask, block_size=16, block_per_row=2)
    compare(impl, inputs, mask, other, block_size=16, block_per_row=2)
    compare(impl, inputs, None, other, block_size=16, block_per_row=2, approx_mode="sparse")


def test_inputs_of_any_layout(impl: str) -> None:
    base = [x.transpose(1, 2).contiguous() for x in random_inputs(2, 3, 80)]
    inputs = tuple(x.transpose(1, 2) for x in base)
    assert not inputs[0].is_contiguous()
    compare(impl, inputs, block_size=16, block_per_row=2)
    expanded = (inputs[0], inputs[1][:, :1].expand(-1, 3, -1, -1), inputs[2])
    compare(impl, expanded, block_size=16, block_per_row=2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_properties(impl: str, data: st.DataObject) -> None:
    batch, heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    query_length = data.draw(st.integers(1, 90))
    key_length = data.draw(st.one_of(st.just(query_length), st.integers(1, 90)))
    inputs = random_inputs(
        batch,
        heads,
        query_length,
        key_length,
        data.draw(st.integers(1, 20)),
        data.draw(st.integers(1, 20)),
        seed=data.draw(st.integers(0, 1000)),
    )

    def draw_mask(length: int) -> torch.Tensor | None:
        kind = data.draw(st.sampled_from(["none", "lengths", "holes"]))
        if kind == "none":
            return None
        if kind == "lengths":
            lengths = st.lists(st.integers(0, length), min_size=batch, max_size=batch)
            return padding_mask(data.draw(lengths), length)
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
        return torch.rand(batch, length, generator=generator) < 0.6

    selection = data.draw(st.sampled_from(["global", "per_row"]))
    block_size = data.draw(st.sampled_from([8, 16, 32]))
    budgets = st.none() if selection == "per_row" else st.one_of(st.none(), st.integers(1, 40))
    compare(
        impl,
        inputs,
        draw_mask(key_length),
        draw_mask(query_length),
        block_size=block_size,
        block_per_row=data.draw(st.integers(1, 6)),
        num_blocks=data.draw(budgets),
        approx_mode=data.draw(st.sampled_from(["full", "sparse"])),
        selection=selection,
        initial_prior_first_n_blocks=data.draw(st.integers(0, 2)),
        initial_prior_diagonal_n_blocks=data.draw(st.integers(0, 3)),
        coarse_key_size=data.draw(st.sampled_from([None, 1, 2, 8])),
        salient_keys=data.draw(st.sampled_from([0, 0, 1, 4, 50])),
        block_score=data.draw(st.sampled_from(["mean", "mass"])),
        exact_up_to=data.draw(st.sampled_from([0, 0, 25, 60])),
    )


def test_gradcheck(impl: str) -> None:
    inputs = tuple(x.requires_grad_() for x in random_inputs(1, 2, 21, 26, 3, 4))
    mask = padding_mask([19], 26)
    for approx_mode in ("full", "sparse"):
        assert torch.autograd.gradcheck(
            lambda q, k, v, mode=approx_mode: mra_attention(
                q,
                k,
                v,
                mask,
                block_size=8,
                block_per_row=1,
                approx_mode=mode,
                return_lse=True,
                impl=impl,
            ),
            inputs,
        )


def test_only_some_inputs_need_gradients(impl: str) -> None:
    query, key, value = random_inputs(1, 2, 64)
    value.requires_grad_()
    out = mra_attention(query, key, value, block_size=8, block_per_row=2, impl=impl)
    out.sum().backward()
    expected = mra_attention(
        query, key, other := value.detach().clone().requires_grad_(),
        block_size=8, block_per_row=2, impl="reference",
    )  # fmt: skip
    expected.sum().backward()
    torch.testing.assert_close(value.grad, other.grad)


def test_the_result_is_deterministic(impl: str) -> None:
    inputs = random_inputs(2, 4, 300, dtype=torch.float32)
    first = run(inputs, block_size=16, impl=impl)
    second = run(inputs, block_size=16, impl=impl)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_peaked_attention_leaves_over_is_not_lost(impl: str, dtype: torch.dtype) -> None:
    """One query of a block looks away from what the block's mean sees almost alone."""
    query, key, value = random_inputs(1, 1, 64, dtype=torch.float64)
    key[:, :, :8, 0] += 40
    query[..., 0] = 12
    query[:, :, 3, 0] = -40
    inputs = tuple(x.to(dtype) for x in (query, key, value))
    # Scores of some hundreds leave a float32 five digits.
    limits = {torch.float64: 1e-11, torch.float32: 1e-4}
    options = {"block_size": 8, **CLOSE}
    compare(impl, inputs, limits=limits, **(options | {"block_per_row": 1, "salient_keys": 0}))
    compare(impl, inputs, limits=limits, **options)
