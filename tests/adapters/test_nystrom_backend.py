"""Nyström attention by name: from the registry, and in every encoder."""

import pytest
import torch
import transformers as tf
from helpers.tiny_models import MAKE, hidden, inputs_of, make, padded

import mra_plugin
from mra_plugin.ops import nystrom_attention, nystrom_attention_weights
from mra_plugin.registry import build_attention, get_attention


def inputs(heads: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, heads, 70, 8, generator=generator) for _ in range(3)]


MASK = padded().bool()


def test_the_backend_is_the_operator() -> None:
    query, key, value = inputs()
    options = {"num_landmarks": 8, "pinv_iterations": 3}
    attention = build_attention("nystrom", **options)
    out = attention(query, key, value, key_padding_mask=MASK, scale=0.2)
    assert torch.equal(out, nystrom_attention(query, key, value, MASK, scale=0.2, **options))
    weights = attention.weights(query, key, MASK, scale=0.2)
    assert torch.equal(weights, nystrom_attention_weights(query, key, MASK, scale=0.2, **options))
    assert "num_landmarks=8" in repr(attention)
    assert set(get_attention("nystrom").parameters) == {
        *options,
        "pinv_start",
        "conv_kernel_size",
        "num_heads",
    }


def test_with_a_convolution() -> None:
    query, key, value = inputs()
    attention = build_attention("nystrom", num_landmarks=8, conv_kernel_size=5, num_heads=2)
    assert {name: x.shape for name, x in attention.state_dict().items()} == {
        "conv.weight": (2, 1, 5, 1)
    }
    out = attention(query, key, value, MASK)
    plain = nystrom_attention(query, key, value, MASK, num_landmarks=8)
    values = value * MASK[:, None, :, None]
    expected = plain + attention.conv(values)
    torch.testing.assert_close(out, expected)
    alone = attention(query, key, value, MASK, MASK)
    torch.testing.assert_close(alone, expected * MASK[:, None, :, None])
    longer = [torch.cat([x, x], 2) for x in (query, key, value)]
    mask = torch.cat([MASK, torch.zeros_like(MASK)], 1)
    torch.testing.assert_close(attention(*longer, mask)[:, :, :70], out)
    out.sum().backward()
    assert attention.conv.weight.grad is not None
    assert torch.all(attention(query, key, value, torch.zeros_like(MASK)) == 0)


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"num_landmarks": 0}, ValueError, "num_landmarks"),
        ({"pinv_iterations": 1.5}, TypeError, "pinv_iterations"),
        ({"pinv_start": "batch"}, ValueError, 'pinv_start must be "sequence" or "head"'),
        ({"conv_kernel_size": 4, "num_heads": 2}, ValueError, "conv_kernel_size must be odd"),
        ({"conv_kernel_size": 0, "num_heads": 2}, ValueError, "conv_kernel_size"),
        ({"conv_kernel_size": 3}, TypeError, "num_heads"),
        ({"num_heads": 2}, ValueError, "num_heads=2 needs conv_kernel_size"),
    ],
)
def test_wrong_options(params: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        build_attention("nystrom", **params)


def test_what_the_convolution_can_not_take() -> None:
    attention = build_attention("nystrom", conv_kernel_size=3, num_heads=2)
    query, key, value = inputs()
    with pytest.raises(ValueError, match="query's length 60"):
        attention(query[:, :, :60], key, value)
    with pytest.raises(ValueError, match="2 heads"):
        attention(*inputs(3))
    with pytest.raises(ValueError, match="weights of its own"):
        mra_plugin.patch(make("bert"), attention="nystrom", conv_kernel_size=3, num_heads=2)


@pytest.mark.parametrize("family", sorted(MAKE))
def test_every_encoder(family: str) -> None:
    model = make(family)
    mask = padded()
    tokens = inputs_of(family, mask)
    exact = hidden(model, **tokens)
    full = hidden(mra_plugin.patch(model, attention="nystrom", num_landmarks=80), **tokens)
    few = hidden(mra_plugin.patch(model, attention="nystrom", num_landmarks=8), **tokens)
    if family != "vit":
        exact, full, few = (one[mask.bool()] for one in (exact, full, few))
    torch.testing.assert_close(full, exact, atol=2e-5, rtol=2e-5)
    assert few.isfinite().all()
    assert (few - exact).abs().max() > 1e-2


def test_saving_and_loading(tmp_path: object) -> None:
    model = mra_plugin.patch(make("roberta"), attention="nystrom", num_landmarks=8)
    model.save_pretrained(tmp_path)
    loaded = tf.AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.config.efficient_attention == {"name": "nystrom", "num_landmarks": 8}
    tokens = inputs_of("roberta", padded())
    assert torch.equal(hidden(loaded, **tokens), hidden(model, **tokens))
    with torch.no_grad():
        matrices = loaded(**tokens, output_attentions=True).attentions
    assert [x.shape for x in matrices] == 2 * [(2, 2, 70, 70)]
