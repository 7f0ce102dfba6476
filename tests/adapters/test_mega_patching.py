"""Other attentions in MEGA models: inside of chunks, in place of them, and refused."""

import pytest
import torch
from helpers.tiny_mega import CHUNKS, DECODER, STILL, config, hidden, make, padded, token_ids
from torch import Tensor

import mra_plugin
from mra_plugin.encoders.capture import attention_inputs
from mra_plugin.registry import build_attention, register_attention

FULL = {"block_size": 8, "block_per_row": 100}


class Plain:
    """Exact, and serves nothing beyond the call."""

    def __init__(self) -> None:
        self.exact = build_attention("sdpa")
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, query: Tensor, *inputs: Tensor, **options: float | None) -> Tensor:
        self.seen.append(tuple(query.shape))
        return self.exact(query, *inputs, **options)


register_attention("mega-test-plain")(Plain)


@pytest.mark.parametrize("extra", [{}, CHUNKS], ids=["whole", "chunks"])
@pytest.mark.parametrize(
    ("attention", "params"), [("sdpa", {}), ("mra", FULL), ("mega-test-plain", {})], ids=str
)
def test_rotary_positions_go_with_any_attention(
    attention: str, params: dict[str, object], extra: dict[str, object]
) -> None:
    model, ids = make(**extra), token_ids()
    mask = padded()
    mask[0, :3] = 0
    own = hidden(model, ids, mask)
    found = hidden(mra_plugin.patch(model, attention=attention, **params), ids, mask)
    assert model.config._attn_implementation in ("mra", "efficient_attention")
    torch.testing.assert_close(found[mask.bool()], own[mask.bool()], atol=1e-4, rtol=1e-4)
    assert found.isfinite().all()
    assert hidden(mra_plugin.unpatch(model), ids, mask).equal(own)


def test_a_small_budget_approximates() -> None:
    model, ids = make(), token_ids()
    own = hidden(model, ids)
    patched = mra_plugin.patch(model, attention="mra", block_size=8, block_per_row=1)
    out = patched(ids, output_attentions=True)
    difference = (out.last_hidden_state - own).abs().max() / own.abs().max()
    assert 1e-3 < difference < 0.5
    assert out.attentions[0].shape == (2, 1, 40, 40)
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(2, 1, 40))


def test_in_place_of_chunks() -> None:
    """Where it is asked for, attention sees the whole sequence."""
    whole, model, ids = make(), make(**CHUNKS), token_ids()
    expected = hidden(whole, ids)
    inside = hidden(mra_plugin.patch(model, attention="mra", **FULL), ids)
    assert not torch.allclose(inside, expected, atol=1e-2)
    model.config.attend_across_chunks = True
    torch.testing.assert_close(hidden(model, ids), expected, atol=1e-4, rtol=1e-4)
    # Exact attention can do so as well.
    mra_plugin.unpatch(model)
    torch.testing.assert_close(hidden(model, ids), expected)
    asked = make(**CHUNKS, attend_across_chunks=True)
    torch.testing.assert_close(hidden(asked, ids), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_chunking", False),
        ("relative_positional_bias", "simple"),
        ("attention_activation", "laplace"),
        ("is_decoder", True),
    ],
)
def test_where_chunks_can_not_be_left_out(field: str, value: object) -> None:
    fields = {**CHUNKS, "bidirectional": field != "is_decoder", field: value}
    with pytest.raises(ValueError, match=f"attend_across_chunks needs {field}="):
        config(**fields, attend_across_chunks=True)
    model = make(**fields)
    model.config.attend_across_chunks = True
    with pytest.raises(ValueError, match=f"attend_across_chunks needs {field}="):
        model(token_ids())


@pytest.mark.parametrize("extra", [{}, CHUNKS], ids=["whole", "chunks"])
def test_simple_positions_go_with_attention_that_serves_a_bias(extra: dict[str, object]) -> None:
    model, ids = make(relative_positional_bias="simple", **extra), token_ids()
    own = hidden(model, ids, padded())
    for attention in ("mra", "nystrom", "mega-test-plain"):
        with pytest.raises(ValueError, match=rf"{attention}.*does not serve a bias.*simple"):
            mra_plugin.patch(model, attention=attention)
    assert model.config._attn_implementation == "eager"
    found = hidden(mra_plugin.patch(model, attention="sdpa"), ids, padded())
    real = padded().bool()
    torch.testing.assert_close(found[real], own[real], atol=1e-5, rtol=1e-5)
    model.train()(ids).last_hidden_state.sum().backward()
    assert model.layers[0].mega_layer.rel_pos_bias.rel_pos_bias.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="does not give with the bias"):
        model(ids, output_attentions=True)
    # The config may ask for it by itself.
    model.config.efficient_attention = {"name": "nystrom"}
    with pytest.raises(ValueError, match=r"adds a bias.*'nystrom' does not serve"):
        model(ids)


@pytest.mark.parametrize("function", ["laplace", "relu2"])
def test_what_is_no_softmax_takes_no_other(function: str) -> None:
    model = make(attention_activation=function)
    with pytest.raises(ValueError, match=rf"'mra' is a softmax.*{function}"):
        mra_plugin.patch(model)
    model.config._attn_implementation = "mra"
    with pytest.raises(ValueError, match=f"{function}.*is no softmax"):
        model(token_ids())


def test_decoders_are_refused() -> None:
    with pytest.raises(ValueError, match="MegaModel can't take another attention: it is a decoder"):
        mra_plugin.patch(make(**DECODER))
    with pytest.raises(ValueError, match="it is a decoder"):
        mra_plugin.patch(make("MegaForCausalLM"))


def test_what_a_model_may_be_loaded_with(tmp_path: object) -> None:
    model, ids = make(**CHUNKS), token_ids()
    model.save_pretrained(tmp_path)
    load = mra_plugin.MegaModel.from_pretrained
    for name in (None, "eager", "sdpa"):
        loaded = load(tmp_path, attn_implementation=name).eval()
        torch.testing.assert_close(hidden(loaded, ids), hidden(model, ids))
        loaded.config.output_attentions = True
        assert len(loaded(ids).attentions) == 2
    loaded = load(tmp_path, attn_implementation="mra", mra=FULL).eval()
    torch.testing.assert_close(hidden(loaded, ids), hidden(model, ids), atol=1e-4, rtol=1e-4)
    assert loaded.config.mra == FULL
    with pytest.raises(ValueError, match=r"flash_attention_2.*mra_plugin.patch"):
        load(tmp_path, attn_implementation="flash_attention_2")

    mra_plugin.patch(model, block_size=8, block_per_row=1).save_pretrained(tmp_path)
    again = load(tmp_path).eval()
    assert again.config.mra == {"block_size": 8, "block_per_row": 1}
    torch.testing.assert_close(hidden(again, ids), hidden(model, ids))

    make(attention_activation="relu2").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'mra' is a softmax"):
        load(tmp_path, attn_implementation="mra")


def test_training_with_another_attention() -> None:
    gradients = []
    for patched in (False, True):
        model = make("MegaForMaskedLM", **STILL, **CHUNKS).train()
        if patched:
            mra_plugin.patch(model, attention="mra", **FULL)
        model(token_ids(), labels=token_ids()).loss.backward()
        gradients.append({name: x.grad for name, x in model.named_parameters()})
    for name, grad in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("attention", [None, "mra"])
@torch.no_grad()
def test_capture(attention: str | None) -> None:
    model, ids, mask = make(), token_ids(), padded()
    if attention:
        mra_plugin.patch(model, attention=attention, **FULL)
    layers = attention_inputs(model, input_ids=ids, attention_mask=mask)
    assert [one.layer for one in layers] == [f"layers.{i}.mega_layer" for i in range(2)]
    matrices = model(ids, mask, output_attentions=True).attentions
    for one, matrix in zip(layers, matrices, strict=True):
        assert one.query.shape == (2, 1, 40, 32)
        assert one.value.shape == (2, 1, 40, 48)
        assert one.key_padding_mask.equal(mask.bool())
        weights = build_attention("sdpa").weights(one.query, one.key, mask.bool(), scale=one.scale)
        torch.testing.assert_close(weights, matrix, atol=1e-4, rtol=1e-4)


def test_capture_of_chunks_and_what_can_not_be_captured() -> None:
    ids = token_ids()
    layers = attention_inputs(make(**CHUNKS), input_ids=ids)
    assert [tuple(one.query.shape) for one in layers] == 2 * [(4, 1, 16, 32), (2, 1, 8, 32)]
    with pytest.raises(ValueError, match="is a softmax"):
        attention_inputs(make(attention_activation="laplace"), input_ids=ids)
    with pytest.raises(ValueError, match=r"depend on distances .score_bias"):
        attention_inputs(make(relative_positional_bias="simple"), input_ids=ids)
    with pytest.raises(ValueError, match="decoder"):
        attention_inputs(make(**DECODER), input_ids=ids)


def test_plot() -> None:
    pytest.importorskip("matplotlib")
    inputs = {"input_ids": token_ids(1)}
    figure = mra_plugin.plot_attention(make(), inputs, block_size=8, block_per_row=2)
    assert len(figure.axes) >= 4
    with pytest.raises(ValueError, match=r"attends in 2 parts.*one sequence, of one chunk"):
        mra_plugin.plot_attention(make(**CHUNKS), inputs, block_size=8)
    short = {"input_ids": token_ids(1, 16)}
    assert len(mra_plugin.plot_attention(make(**CHUNKS), short, block_size=8).axes) >= 4
