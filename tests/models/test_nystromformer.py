"""Nyströmformer where the original raises or mixes: masks, lengths, rows, types, options."""

import pytest
import torch
from helpers.layer_families import in_heads
from helpers.tiny_mra import hidden, token_ids
from helpers.tiny_nystromformer import HEADS, SIZES, config, inputs_of, make
from torch.nn.functional import scaled_dot_product_attention

import mra_plugin
from mra_plugin.ops import nystrom_attention, nystrom_attention_weights

POSITIONS = SIZES["max_position_embeddings"]
# By landmarks, and exact.
MODES = pytest.mark.parametrize("mode", [{}, {"num_landmarks": POSITIONS}], ids=["few", "exact"])
MODES_AND_PATCHES = pytest.mark.parametrize(
    ("mode", "attention"),
    [({}, None), ({"num_landmarks": POSITIONS}, None), ({}, "mra"), ({}, "nystrom"), ({}, "sdpa")],
    ids=str,
)


@MODES_AND_PATCHES
@pytest.mark.parametrize("tokens", [1, 7, 70, POSITIONS])
def test_rows_do_not_depend_on_padding_or_neighbours(
    mode: dict[str, int], attention: str | None, tokens: int
) -> None:
    model = make(**mode)
    if attention is not None:
        options = {"block_size": 8, "block_per_row": 1} if attention == "mra" else {}
        mra_plugin.patch(model, attention=attention, **options)
    ids = token_ids(3, POSITIONS)
    mask = (torch.arange(POSITIONS) < tokens).long().repeat(3, 1)
    mask[1] = 1
    together = hidden(model, ids, mask)
    alone = hidden(model, ids[:1, :tokens])
    torch.testing.assert_close(together[:1, :tokens], alone, atol=3e-5, rtol=3e-5)
    torch.testing.assert_close(together[1:2], hidden(model, ids[1:2]), atol=3e-5, rtol=3e-5)
    # In front: the same tokens at the same positions.
    front = torch.cat([ids[:1, tokens:], ids[:1, :tokens]], 1)
    places = torch.arange(POSITIONS).roll(-tokens)[None] + 2
    moved = hidden(model, front, mask[:1].flip(1), position_ids=places)
    torch.testing.assert_close(moved[:, POSITIONS - tokens :], alone, atol=3e-5, rtol=3e-5)
    assert hidden(model, ids, torch.zeros_like(mask)).isfinite().all()


@MODES
@pytest.mark.parametrize("start", ["sequence", "head"])
def test_a_layer_is_the_operator_and_its_convolution(mode: dict[str, int], start: str) -> None:
    model = make(**mode, inv_coeff_init_option=start == "head")
    layer = model.encoder.layer[0].attention.self
    mask = torch.rand(2, 70, generator=torch.Generator().manual_seed(0)) < 0.6
    states = torch.randn(2, 70, SIZES["hidden_size"])
    with torch.no_grad():
        query, key, value = in_heads(layer, states)
        out, weights = layer(states, mask, True)
        if mode:
            expected = scaled_dot_product_attention(query, key, value, mask[:, None, None])
        else:
            options = {"num_landmarks": 8, "pinv_start": start}
            expected = nystrom_attention(query, key, value, mask, **options)
            matrices = nystrom_attention_weights(query, key, mask, **options)
            torch.testing.assert_close(weights, matrices)
        expected = expected + layer.conv(value * mask[:, None, :, None])
        expected = expected.transpose(1, 2).flatten(2)
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(layer(states, mask)[0], expected, atol=2e-5, rtol=2e-5)


def test_without_a_convolution() -> None:
    layer = make(conv_kernel_size=None).encoder.layer[0].attention.self
    assert not [name for name in layer.state_dict() if "conv" in name]
    states = torch.randn(2, 30, SIZES["hidden_size"])
    out, weights = layer(states, None, True)
    value = in_heads(layer, states)[2]
    torch.testing.assert_close(out, (weights @ value).transpose(1, 2).flatten(2))


def test_an_input_beyond_the_positions() -> None:
    model = make("NystromformerForMaskedLM")
    with pytest.raises(ValueError, match=f"{POSITIONS + 1} tokens.*{POSITIONS} .*truncation"):
        model(token_ids(1, POSITIONS + 1))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "either input_ids or inputs_embeds"),
        ({"input_ids": token_ids(2, 9)[0]}, "input_ids must have shape"),
        ({"input_ids": token_ids(), "attention_mask": torch.ones(2, 9)}, "attention_mask must"),
        ({"input_ids": token_ids(), "attention_mask": torch.ones(2, 70, 70)}, "attention_mask"),
    ],
    ids=["none", "shape", "short mask", "3-D mask"],
)
def test_wrong_inputs(inputs: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()(**inputs)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"num_landmarks": 0}, "num_landmarks must be at least 1, got 0"),
        ({"segment_means_seq_len": 7}, r"segment_means_seq_len .* num_landmarks \(8\), got 7"),
        ({"conv_kernel_size": 4}, "conv_kernel_size must be None or odd .* got 4"),
        ({"conv_kernel_size": -1}, "conv_kernel_size must"),
        ({"hidden_size": 65}, "multiple of num_attention_heads"),
        ({"hidden_act": "none"}, "hidden_act must name"),
        ({"add_cross_attention": True}, "add_cross_attention must be False"),
    ],
    ids=str,
)
def test_fields_that_no_model_can_have(field: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**field)


def test_defaults_are_those_of_transformers_and_exact() -> None:
    import transformers as tf

    theirs = tf.NystromformerConfig().to_dict()
    ours = mra_plugin.NystromformerConfig().to_dict()
    assert {name: ours.get(name) for name in theirs} == theirs
    sizes = {name: SIZES[name] for name in ("hidden_size", "num_attention_heads", "vocab_size")}
    few = {"num_hidden_layers": 1, "initializer_range": 0.2}
    torch.manual_seed(0)
    model = mra_plugin.NystromformerModel(mra_plugin.NystromformerConfig(**sizes, **few)).eval()
    ids = token_ids(2, 200)
    out = hidden(model, ids)
    mra_plugin.patch(model, attention="sdpa")
    torch.testing.assert_close(hidden(model, ids), out)


def test_attentions_that_it_can_not_have() -> None:
    with pytest.raises(ValueError, match=r"attn_implementation='sdpa' is none .*mra_plugin.patch"):
        make(attn_implementation="sdpa")
    model = make()
    before = hidden(model, **inputs_of("NystromformerModel"))
    model.set_attn_implementation("mra")
    assert not torch.equal(hidden(model, **inputs_of("NystromformerModel")), before)
    assert torch.equal(hidden(mra_plugin.unpatch(model), **inputs_of("NystromformerModel")), before)


def test_patched_with_other_landmarks(tmp_path: object) -> None:
    model = make(inv_coeff_init_option=True)
    inputs = inputs_of("NystromformerModel")
    before = hidden(model, **inputs)
    # The fields go for what patch is not given.
    assert torch.equal(hidden(mra_plugin.patch(model, attention="nystrom"), **inputs), before)
    few = hidden(mra_plugin.patch(model, attention="nystrom", num_landmarks=2), **inputs)
    assert not torch.allclose(few, before, atol=1e-3)
    model.save_pretrained(tmp_path)
    assert torch.equal(hidden(type(model).from_pretrained(tmp_path), **inputs), few)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@MODES
def test_16_bit_types(mode: dict[str, int], dtype: torch.dtype) -> None:
    model, inputs = make(**mode, hidden_dropout_prob=0.0), inputs_of("NystromformerModel")
    expected = hidden(model, **inputs)
    found = hidden(model.to(dtype), **inputs)
    assert found.dtype == dtype
    error = (found.float() - expected)[inputs["attention_mask"].bool()].abs()
    assert error.mean() < (0.1 if dtype == torch.bfloat16 else 0.02)


def test_one_graph_serves_many_lengths() -> None:
    torch._dynamo.reset()
    model = make(num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (120, 101, 70):
            inputs = inputs_of(HEADS[0], 2, tokens, 40)
            torch.testing.assert_close(
                hidden(compiled, **inputs), hidden(model, **inputs), atol=2e-5, rtol=2e-5
            )
