"""ModernBERT's local layers stay exact and local; only its global layers change."""

import pytest
import torch
from helpers.tiny_models import hidden, inputs_of, make, padded
from transformers.masking_utils import create_bidirectional_sliding_window_mask

import mra_plugin
from mra_plugin.adapters.transformers.masks import read_mask
from mra_plugin.ops.local_attention import local_attention, local_attention_weights

SMALL = {"block_size": 8, "block_per_row": 1}


@pytest.mark.parametrize("reach", [0, 1, 5, 16, 40, 500])
@pytest.mark.parametrize("length", [1, 7, 16, 33, 100])
def test_local_attention_is_exact(length: int, reach: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(
        3, 2, 3, length, 4, generator=generator, dtype=torch.float64
    ).unbind()
    real = torch.ones(2, length, dtype=torch.bool)
    real[1, length // 2 + 1 :] = False
    position = torch.arange(length)
    allowed = ((position[:, None] - position).abs() <= reach) & real[:, None, None, :]
    logits = (query @ key.mT * 0.7).masked_fill(~allowed, float("-inf"))
    weights = logits.softmax(-1)
    rows = real[:, None, :].expand(2, 3, length)

    out = local_attention(query, key, value, real, reach, 0.7)
    torch.testing.assert_close(out[rows], (weights @ value)[rows])
    assert out.isfinite().all()
    dense = local_attention_weights(query, key, real, reach, 0.7)
    torch.testing.assert_close(dense[rows], weights[rows], atol=1e-6, rtol=1e-6)
    assert dense.isfinite().all()


def test_gradient_of_local_attention() -> None:
    inputs = [torch.randn(1, 2, 20, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    real = torch.arange(20)[None] < 15
    assert torch.autograd.gradcheck(
        lambda *qkv: local_attention(*qkv, real, 4, None), inputs, fast_mode=True
    )


@pytest.mark.parametrize("real", [70, 45])
def test_local_layers_alone_equal_exact_attention(real: int) -> None:
    model = make("modernbert", layer_types=["sliding_attention"] * 2)
    mask = padded(real=real)
    inputs = inputs_of("modernbert", mask)
    exact = hidden(model, **inputs)[mask.bool()]
    patched = hidden(mra_plugin.patch(model, **SMALL), **inputs)[mask.bool()]
    torch.testing.assert_close(patched, exact, atol=2e-5, rtol=2e-5)


def test_global_layers_change() -> None:
    model = make("modernbert", layer_types=["full_attention"] * 2)
    inputs = inputs_of("modernbert", padded())
    exact = hidden(model, **inputs)
    assert (hidden(mra_plugin.patch(model, **SMALL), **inputs) - exact).abs().max() > 1e-2


def test_a_window_larger_than_the_text_sees_all_of_it() -> None:
    model = make("modernbert", layer_types=["sliding_attention"] * 2, local_attention=400)
    inputs = inputs_of("modernbert")
    exact = hidden(model, **inputs)
    patched = hidden(mra_plugin.patch(model, **SMALL), **inputs)
    torch.testing.assert_close(patched, exact, atol=2e-5, rtol=2e-5)


def test_a_local_layer_knows_its_reach_from_the_mask() -> None:
    model = mra_plugin.patch(make("modernbert"))
    embeds = torch.zeros(2, 70, 32)
    for attention_mask in (None, padded()):
        mask = create_bidirectional_sliding_window_mask(model.config, embeds, attention_mask)
        padding, reach = read_mask(mask, torch.zeros(2, 2, 70, 16))
        assert reach == 10
        assert torch.equal(
            padding,
            torch.ones(2, 70, dtype=torch.bool)
            if attention_mask is None
            else attention_mask.bool(),
        )


def test_a_window_without_its_mask_is_refused() -> None:
    model = mra_plugin.patch(make("modernbert"))
    with pytest.raises(ValueError, match="sliding window, but its mask does not"):
        model(
            input_ids=torch.zeros(1, 8, dtype=torch.long),
            attention_mask={"full_attention": None, "sliding_attention": None},
        )
