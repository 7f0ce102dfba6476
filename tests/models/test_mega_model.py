"""What a MEGA model computes, and where transformers 4 went wrong, what is right."""

import copy
import gc
import weakref

import pytest
import torch
from helpers.tiny_mega import (
    CHUNKS,
    DECODER,
    HEADS,
    SIZES,
    STILL,
    assert_same,
    config,
    hidden,
    make,
    padded,
    token_ids,
)
from torch import nn

import mra_plugin
from mra_plugin.models.mega.positions import RotaryBias, SimpleBias

FUNCTIONS = ["softmax", "laplace", "relu2"]
NORMS = ["scalenorm", "layernorm", "rmsnorm", "batchnorm", "syncbatchnorm"]


# Positions


def test_a_bias_is_that_of_the_distance() -> None:
    table = torch.randn(95, dtype=torch.double)
    distance = torch.arange(9) - torch.arange(4, 9)[:, None]
    simple = SimpleBias(table, middle=20)
    assert simple.between(5, 9, 4).equal(table[19 + distance])
    assert simple.at(torch.arange(4, 9), torch.arange(9)).equal(table[19 + distance])
    # Beyond the rows that count there is nothing.
    assert simple.between(1, 30, 29)[0, :10].eq(0).all()

    alpha, beta = torch.randn(2, 1, 8, dtype=torch.double)
    turn = 10000.0 ** -(torch.arange(4, dtype=torch.double) / 4)
    (a1, a2), (b1, b2) = alpha[0].chunk(2), beta[0].chunk(2)
    angle = distance[..., None] * turn
    expected = ((a1 * b1 + a2 * b2) * angle.cos() + (a2 * b1 - a1 * b2) * angle.sin()).sum(-1)
    rotary = RotaryBias(alpha, beta)
    assert_same(rotary.between(5, 9, 4), expected)
    assert_same(rotary.at(torch.arange(4, 9) + 7, torch.arange(9) + 7), expected)


# Norms


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("affine", [True, False])
def test_norms(kind: str, affine: bool) -> None:
    model = make(normalization_type=kind, norm_affine=affine).double()
    norm = model.layers[0].mega_layer.norm
    assert bool(list(norm.parameters())) == affine
    x = torch.randn(3, 5, 32, dtype=torch.double) * 4 + 1
    out = norm.train()(x)
    if kind in ("scalenorm", "rmsnorm"):
        assert_same(out, x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5))
    elif kind == "layernorm":
        assert_same(out, (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, True) + 1e-5).sqrt())
    else:
        spread = (x.var((0, 1), False) + 1e-5).sqrt()
        assert_same(out, (x - x.mean((0, 1))) / spread)
    if affine:
        for parameter in norm.parameters():
            parameter.data.fill_(2)
        shift = (
            2
            if "weight" in dict(norm.norm.named_parameters()) and hasattr(norm.norm, "bias")
            else 0
        )
        assert_same(norm.train()(x), 2 * out + shift)
    assert hidden(model.eval(), token_ids()).isfinite().all()


# Nothing is kept between calls


def test_weights_that_change_are_heeded_at_once() -> None:
    model, ids = make(), token_ids()
    hidden(model, ids)
    torch.manual_seed(1)
    other = mra_plugin.MegaModel(config()).eval()
    model.load_state_dict(other.state_dict())
    assert hidden(model, ids).equal(hidden(other, ids))
    exact = hidden(model.double(), ids)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), hidden(other, ids), atol=1e-4, rtol=1e-4)
    assert hidden(copy.deepcopy(model), ids).equal(exact)


def test_backward_twice_and_after_a_look() -> None:
    model, ids = make(), token_ids()
    hidden(model, ids)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(ids).last_hidden_state.square().sum().backward()
        gradients.append(
            {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}
        )
    assert "layers.0.mega_layer.ema_gate.decay_factor" in gradients[0]
    for name, grad in gradients[0].items():
        assert grad.equal(gradients[1][name])
        assert grad.abs().max() > 0, name


def test_a_call_leaves_nothing_behind() -> None:
    model = make()
    out = model(token_ids()).last_hidden_state
    kept = weakref.ref(out)
    del out
    gc.collect()
    assert kept() is None


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_sixteen_bits_at_some_length(function: str, dtype: torch.dtype) -> None:
    """With slow averages, whose kernels positions in 16 bits would ruin."""
    model = make(attention_activation=function, initializer_range=0.1, **CHUNKS)
    for layer in model.layers:
        layer.mega_layer.ema_gate.decay_factor.data -= 5
    ids, mask = token_ids(2, 700), padded(2, 700, 650)
    # The same rounded weights in both.
    model.to(dtype).float()
    expected = hidden(model, ids, mask)
    found = hidden(model.to(dtype), ids, mask)
    assert found.dtype == dtype
    error = (found.float() - expected)[mask.bool()].abs().max() / expected.abs().max()
    assert error < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_half_and_back_is_whole() -> None:
    model, ids = make(), token_ids()
    half_and_back = make().half().float()
    model.load_state_dict(half_and_back.state_dict())
    assert hidden(half_and_back, ids).equal(hidden(model, ids))


def test_double_precision_is_double() -> None:
    model, ids = make(), token_ids()
    exact = hidden(copy.deepcopy(model).double(), ids)
    slightly = copy.deepcopy(model).double()
    slightly.layers[0].mega_layer.ema_gate.decay_factor.data += 1e-9
    moved = (hidden(slightly, ids) - exact).abs().max()
    assert 1e-13 < moved < 1e-6


# Dropout


def test_feature_dropout_of_values_drops_single_features() -> None:
    model = make(use_feature_dropout=True, **{**STILL, "hidden_dropout_prob": 0.5}, **CHUNKS)
    layer, seen = model.layers[0].mega_layer.train(), []
    attend = layer._attend
    layer._attend = lambda inputs, wanted: seen.append(inputs.value) or attend(inputs, wanted)
    layer(torch.randn(4, 40, 32))
    dropped = seen[0].eq(0)
    assert (dropped.all(1) | ~dropped.any(1)).all()
    assert 0.2 < dropped[:, 0].float().mean() < 0.8
    assert not dropped[0, 0].equal(dropped[1, 0])


@pytest.mark.parametrize("name", STILL)
@pytest.mark.parametrize("by_feature", [False, True])
@torch.no_grad()
def test_each_dropout_drops(name: str, by_feature: bool) -> None:
    model = make(**{**STILL, "use_feature_dropout": by_feature}).train()
    assert model(token_ids())[0].equal(model.eval()(token_ids())[0])
    model = make(**{**STILL, name: 0.5, "use_feature_dropout": by_feature}).train()
    assert not model(token_ids())[0].equal(model(token_ids())[0])


# Arguments


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("extra", [{}, DECODER, {"relative_positional_bias": "simple"}], ids=str)
@torch.no_grad()
def test_attentions_are_the_matrices_that_were_used(
    function: str, extra: dict[str, object]
) -> None:
    model, ids, mask = make(attention_activation=function, **extra).double(), token_ids(), padded()
    out = model(ids, mask, output_attentions=True, output_hidden_states=True)
    assert_same(out.last_hidden_state[mask.bool()], hidden(model, ids, mask)[mask.bool()])
    assert [x.shape for x in out.attentions] == 2 * [(2, 1, 40, 40)]
    assert out.hidden_states[-1].equal(out.last_hidden_state)
    assert len(out.hidden_states) == 3
    for weights in out.attentions:
        assert weights[1, 0, :25, 25:].eq(0).all()
        if function == "softmax":
            assert_same(weights[0, 0].sum(-1), torch.ones(40, dtype=torch.double))
        if extra is DECODER:
            assert weights[0, 0].triu(1).eq(0).all()


@torch.no_grad()
def test_token_types(caplog: pytest.LogCaptureFixture) -> None:
    model, ids = make(add_token_type_embeddings=True), token_ids()
    types = torch.arange(40).expand(2, -1) % 2
    table = model.embedding_layer.token_type_embeddings.weight
    embeds = model.get_input_embeddings()(ids)
    bare = make()
    bare.load_state_dict(model.state_dict(), strict=False)
    assert hidden(model, ids, token_type_ids=types).equal(
        hidden(bare, inputs_embeds=embeds + table[types])
    )
    assert hidden(model, ids).equal(hidden(model, ids, token_type_ids=torch.zeros_like(ids)))
    # Without a table they have no effect, as tokenizers may give them to any model.
    assert hidden(bare, ids, token_type_ids=types).equal(hidden(bare, ids))


def test_inputs_are_checked() -> None:
    model, ids = make(), token_ids()
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds, got both"):
        model(ids, inputs_embeds=model.get_input_embeddings()(ids))
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds, got none"):
        model()
    with pytest.raises(ValueError, match="input_ids must have shape"):
        model(ids[0])
    for mask in (torch.ones(2, 40, 40), torch.ones(2, 39), torch.ones(1, 40)):
        with pytest.raises(ValueError, match=r"attention_mask must have shape \(2, 40\)"):
            model(ids, mask)
    with pytest.raises(ValueError, match="without cross attention"):
        model(ids, encoder_hidden_states=torch.ones(2, 3, 32))
    crossed = make(**DECODER, add_cross_attention=True)
    with pytest.raises(ValueError, match="needs encoder_hidden_states"):
        crossed(ids)
    with pytest.raises(ValueError, match=r"encoder_attention_mask must have shape \(2, 3\)"):
        crossed(
            ids,
            encoder_hidden_states=torch.ones(2, 3, 32),
            encoder_attention_mask=torch.ones(2, 4),
        )


@torch.no_grad()
def test_cross_attention() -> None:
    model = make(**DECODER, add_cross_attention=True)
    ids, states = token_ids(), torch.randn(2, 6, 32)
    out = model(ids, encoder_hidden_states=states, output_attentions=True)
    assert [x.shape for x in out.cross_attentions] == 2 * [(2, 40, 6)]
    plain = hidden(model, ids, encoder_hidden_states=states)
    torch.testing.assert_close(out.last_hidden_state, plain, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(
        hidden(model, ids, encoder_hidden_states=states + 1), plain, atol=1e-3
    )


@pytest.mark.parametrize("function", ["softmax", "laplace"])
@torch.no_grad()
def test_one_mask_of_an_encoder_for_all_rows(function: str) -> None:
    model = make(**DECODER, add_cross_attention=True, attention_activation=function)
    ids, states = token_ids(), torch.randn(2, 6, 32)
    mask, of_encoder = torch.ones_like(ids), torch.tensor([[1, 1, 1, 1, 0, 0]])
    mask[1, :3] = 0
    given = {"attention_mask": mask, "encoder_hidden_states": states}
    each = hidden(model, ids, **given, encoder_attention_mask=of_encoder.expand(2, -1))
    assert hidden(model, ids, **given, encoder_attention_mask=of_encoder).equal(each)
    with pytest.raises(ValueError, match=r"encoder_attention_mask must have shape \(2, 6\)"):
        model(ids, **given, encoder_attention_mask=of_encoder.expand(3, -1))


# A problem type goes by the labels of each call


def test_the_problem_type_is_not_written_into_the_config() -> None:
    model, ids = make("MegaForSequenceClassification"), token_ids()
    assert model(ids, labels=torch.tensor([0, 1])).loss.isfinite()
    assert model.config.problem_type is None
    assert model(ids, labels=torch.rand(2, 2)).loss.isfinite()
    assert model.config.problem_type is None


def modules_with_parameters(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, _ in model.named_parameters()}


def test_parts_that_a_config_leaves_out() -> None:
    assert not [n for n, _ in make(use_normalized_ffn=False).named_parameters() if "nffn" in n]
    assert "dense" in modules_with_parameters(make("MegaForMaskedLM"))
    lean = make("MegaForMaskedLM", add_lm_hidden_dense_layer=False)
    assert "dense" not in modules_with_parameters(lean)
    pooled = mra_plugin.MegaModel(config(), add_pooling_layer=False)
    assert "pooler" not in modules_with_parameters(pooled)
    assert pooled.eval()(token_ids()).pooler_output is None
    assert SIZES["max_positions"] == pooled.config.max_position_embeddings


# Weights


@pytest.mark.parametrize("head", HEADS)
def test_fresh_weights(head: str) -> None:
    spreads = {"ema_delta_alpha_range": 0.3, "ema_beta_range": 0.1, "ema_gamma_omega_range": 2.0}
    for bias in ("rotary", "simple"):
        model = make(head, initializer_range=0.05, relative_positional_bias=bias, **spreads)
        for name, parameter in model.named_parameters():
            mean, spread = 0.0, 0.05
            if name.endswith("norm.scalar"):
                assert parameter.eq(1).all(), name
                continue
            if name.endswith((".bias", "qk_bias")):
                assert parameter.eq(0).all(), name
                continue
            if name.endswith(("damping_factor", "decay_factor")):
                spread = 0.3
            elif name.endswith(("kernel_projection_matrix", "residual_weight")):
                spread = 2.0
            elif name.endswith("ema_expansion_matrix"):
                parameter, spread = parameter * torch.tensor([1, -1, 1, -1])[:, None], 0.1
                mean = 1.0
            # Of so many numbers as there are.
            allowed = 5 * spread / parameter.numel() ** 0.5
            assert abs(parameter.std().item() - spread) < allowed, name
            assert abs(parameter.mean().item() - mean) < allowed, name
        assert model.get_input_embeddings().weight[1].eq(0).all()
