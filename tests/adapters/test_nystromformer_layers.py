"""transformers' Nyströmformer: equal to itself where it works, and right where it does not."""

import pytest
import torch
from helpers.layer_families import POSITIONS, attention_layer, in_heads, make, padded_inputs
from helpers.tiny_models import hidden, token_ids
from torch.nn.functional import scaled_dot_product_attention

import mra_plugin
from mra_plugin.ops import nystrom_attention

FULL_LENGTH = {"input_ids": token_ids(2, POSITIONS)}


@pytest.mark.parametrize("landmarks", [5, 16, 80])
@pytest.mark.parametrize("conv", [3, 65, None])
def test_equal_to_the_original_where_it_works(landmarks: int, conv: int | None) -> None:
    model = make("Nystromformer", num_landmarks=landmarks)
    for index in range(2):
        layer = attention_layer(model, index)
        layer.conv_kernel_size = conv
        if conv == 3:
            layer.conv = torch.nn.Conv2d(2, 2, (3, 1), padding=(1, 0), bias=False, groups=2)
    # One by one: in the original, the sequences of a batch change each other.
    rows = FULL_LENGTH["input_ids"].split(1)
    original = torch.cat([hidden(model, input_ids=row) for row in rows])
    patched = hidden(mra_plugin.patch(model, attention="nystrom"), **FULL_LENGTH)
    torch.testing.assert_close(patched, original, atol=1e-4, rtol=1e-4)


def test_a_model_that_never_approximates_is_equal_to_exact_attention() -> None:
    model = make("Nystromformer", num_landmarks=64, segment_means_seq_len=64)
    for tokens in (70, POSITIONS):
        inputs = {"input_ids": token_ids(2, tokens)}
        original = hidden(model, **inputs)
        patched = hidden(mra_plugin.patch(model, attention="sdpa"), **inputs)
        torch.testing.assert_close(patched, original, atol=2e-5, rtol=2e-5)
        mra_plugin.unpatch(model)


def test_the_original_raises_at_a_mask_and_the_patched_does_not() -> None:
    model = make("Nystromformer")
    inputs = padded_inputs(POSITIONS, 100)
    with pytest.raises(RuntimeError):
        hidden(model, **inputs)
    assert hidden(mra_plugin.patch(model), **inputs).isfinite().all()


@pytest.mark.parametrize("side", ["right", "left", "holes"])
def test_the_convolution_is_kept_and_fed_no_padding(side: str) -> None:
    layer = attention_layer(mra_plugin.patch(make("Nystromformer"), attention="sdpa"))
    states = torch.randn(1, 90, 64, generator=torch.Generator().manual_seed(0))
    at = torch.arange(90)
    mask = {"right": at < 60, "left": at >= 30, "holes": at % 3 > 0}[side][None]
    with torch.no_grad():
        out = layer(states, mask)[0]
        query, key, value = in_heads(layer, states)
        open_keys = mask[:, None, None, :]
        expected = scaled_dot_product_attention(query, key, value, attn_mask=open_keys)
        # out_i = Σ_t w_t v_(i + t - 32) over real tokens, for one head after the other
        weight = layer.conv.weight[:, 0, :, 0]
        for head in range(2):
            for tap in range(65):
                source = at + tap - 32
                real = (source >= 0) & (source < 90)
                real &= mask[0, source.clamp(0, 89)]
                values = value[0, head, source.clamp(0, 89)] * real[:, None]
                expected[0, head] += weight[head, tap] * values
    expected = expected.transpose(1, 2).flatten(2)
    torch.testing.assert_close(out[mask], expected[mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("given", "landmarks"), [({}, 16), ({"num_landmarks": 9}, 9)])
def test_landmarks_of_the_model_and_of_patch(given: dict[str, int], landmarks: int) -> None:
    model = mra_plugin.patch(make("Nystromformer"), attention="nystrom", **given)
    assert model.config.efficient_attention == {"name": "nystrom", **given}
    layer = attention_layer(model)
    states = torch.randn(2, 133, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        query, key, value = in_heads(layer, states)
        out = nystrom_attention(query, key, value, num_landmarks=landmarks) + layer.conv(value)
        torch.testing.assert_close(layer(states)[0], out.transpose(1, 2).flatten(2))
