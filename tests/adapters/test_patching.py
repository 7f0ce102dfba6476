"""`patch` and `unpatch` on live models."""

import copy
import pickle

import pytest
import torch
import transformers as tf
from helpers.tiny_models import hidden, inputs_of, make, padded, siglip, token_ids
from torch import nn

import mra_plugin
from mra_plugin.registry import build_attention, register_attention

SMALL = {"block_size": 8, "block_per_row": 1}
INPUTS = inputs_of("roberta", padded())
REAL = padded().bool()


def small_roberta() -> nn.Module:
    return mra_plugin.patch(make("roberta"), **SMALL)


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_unpatch_gives_the_same_bits_back(before: str) -> None:
    model = make("roberta", attn_implementation=before)
    exact = hidden(model, **INPUTS)
    config = model.config.to_dict()

    assert mra_plugin.patch(model, **SMALL) is model
    assert not torch.equal(hidden(model, **INPUTS), exact)
    assert mra_plugin.unpatch(model) is model
    assert torch.equal(hidden(model, **INPUTS), exact)
    assert model.config._attn_implementation == before
    assert model.config.to_dict() == config
    mra_plugin.unpatch(model)
    assert model.config._attn_implementation == before


def test_a_second_patch_replaces_the_first() -> None:
    model = make("roberta", attn_implementation="eager")
    mra_plugin.patch(model, block_per_row=2, approx_mode="sparse")
    mra_plugin.patch(model, block_per_row=3)
    assert model.config.mra == {"block_per_row": 3}
    mra_plugin.patch(model, attention="sdpa")
    assert model.config.mra is None
    assert model.config.efficient_attention == {"name": "sdpa"}
    mra_plugin.unpatch(model)
    assert model.config._attn_implementation == "eager"
    assert model.config.efficient_attention is None


def test_unpatching_what_was_loaded_with_the_flag() -> None:
    model = tf.RobertaModel._from_config(make("roberta").config, attn_implementation="mra").eval()
    mra_plugin.unpatch(model)
    assert model.config._attn_implementation == "sdpa"

    model.set_attn_implementation("mra")
    mra_plugin.patch(model, block_per_row=2)
    mra_plugin.unpatch(model)
    assert model.config._attn_implementation == "sdpa"
    assert model.config.mra is None


def test_a_part_can_be_unpatched_for_the_whole() -> None:
    model = tf.RobertaForTokenClassification(make("roberta").config)
    mra_plugin.patch(model)
    assert model.roberta.config._attn_implementation == "mra"
    mra_plugin.unpatch(model.roberta)
    assert model.config._attn_implementation == "sdpa"


def test_inside_a_module_that_is_not_of_transformers() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = make("roberta")

    wrapped = mra_plugin.patch(Wrapped(), **SMALL)
    assert torch.equal(hidden(wrapped.encoder, **INPUTS), hidden(small_roberta(), **INPUTS))


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)
def test_copies_are_patched_and_independent(copied: object) -> None:
    model = small_roberta()
    out = hidden(model, **INPUTS)
    twin = copied(model)
    assert torch.equal(hidden(twin, **INPUTS), out)
    mra_plugin.unpatch(twin)
    assert twin.config._attn_implementation == "sdpa"
    assert torch.equal(hidden(model, **INPUTS), out)


def test_other_dtypes() -> None:
    model = small_roberta()
    out = hidden(model, **INPUTS)
    assert (hidden(copy.deepcopy(model).double(), **INPUTS) - out).abs().max() < 1e-4
    lower = hidden(copy.deepcopy(model).bfloat16(), **INPUTS)
    assert lower.dtype == torch.bfloat16
    assert (lower[REAL].float() - out[REAL]).abs().mean() < 0.1


def test_parameters_changed_in_the_config_take_effect() -> None:
    model = small_roberta()
    few = hidden(model, **INPUTS)
    model.config.mra["block_per_row"] = 9
    assert not torch.equal(hidden(model, **INPUTS), few)
    # True and 8.0 equal legal numbers, but are none.
    for wrong in (True, 8.0):
        model.config.mra["block_size"] = wrong
        with pytest.raises(TypeError, match="block_size"):
            model(**INPUTS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"block_per_rows": 8}, "block_per_rows"),
        ({"block_per_row": 0}, "block_per_row"),
        ({"block_size": 33}, "block_size"),
        ({"approx_mode": "dense"}, "approx_mode"),
        ({"selection": "best"}, "selection"),
        ({"num_blocks": 0}, "num_blocks"),
        ({"impl": "cuda"}, "impl"),
    ],
)
def test_wrong_parameters_change_nothing(params: dict[str, object], message: str) -> None:
    model = mra_plugin.patch(make("roberta"), block_per_row=2)
    with pytest.raises((TypeError, ValueError), match=message):
        mra_plugin.patch(model, **params)
    assert model.config.mra == {"block_per_row": 2}

    config = make("roberta").config
    config.mra = params
    with pytest.raises((TypeError, ValueError), match=message):
        tf.RobertaModel._from_config(config, attn_implementation="mra")


def test_config_params_must_be_a_dict() -> None:
    config = make("roberta").config
    config.mra = 8
    with pytest.raises(TypeError, match=r"config\.mra"):
        tf.RobertaModel._from_config(config, attn_implementation="mra")
    config.efficient_attention = {"block_size": 8}
    with pytest.raises(ValueError, match="name"):
        tf.RobertaModel._from_config(config, attn_implementation="efficient_attention")


def test_unknown_attention() -> None:
    model = make("roberta")
    with pytest.raises(ValueError, match="mrra"):
        mra_plugin.patch(model, attention="mrra")
    assert model.config._attn_implementation == "sdpa"


def test_a_backend_of_the_registry() -> None:
    model = make("roberta")
    exact = hidden(model, **INPUTS)
    mra_plugin.patch(model, attention="sdpa")
    out = hidden(model, **INPUTS)
    torch.testing.assert_close(out[REAL], exact[REAL], atol=2e-5, rtol=2e-5)


class Mean:
    """Every query gets the mean of the real values, times a factor."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(
        self, query, key, value, key_padding_mask=None, query_padding_mask=None, *, scale=None
    ):
        real = key.new_ones(key.shape[0], key.shape[2])
        if key_padding_mask is not None:
            real = key_padding_mask.to(key.dtype)
        mean = torch.einsum("bhnd,bn->bhd", value, real / real.sum(-1, keepdim=True))
        return self.factor * mean[:, :, None].expand(-1, -1, query.shape[2], -1)


class Weighted(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)


register_attention("adapter-test-mean", summary="for tests")(Mean)
register_attention("adapter-test-weighted", summary="for tests")(Weighted)


def test_a_backend_of_someone_else(tmp_path: object) -> None:
    model = mra_plugin.patch(make("roberta"), attention="adapter-test-mean", factor=2.0)
    out = hidden(model, **INPUTS)
    mean = build_attention("adapter-test-mean", factor=2.0)
    layer = model.encoder.layer[0].attention.self
    seen = torch.randn(1, 5, 32)
    value = layer.value(seen).view(1, 5, 2, 16).transpose(1, 2)
    expected = mean(value, value, value).transpose(1, 2).reshape(1, 5, 32)
    torch.testing.assert_close(layer(seen)[0], expected)

    model.save_pretrained(tmp_path)
    loaded = tf.AutoModel.from_pretrained(tmp_path).eval()
    assert torch.equal(hidden(loaded, **INPUTS), out)
    with pytest.raises(ValueError, match="Mean does not give"):
        loaded(**INPUTS, output_attentions=True)


def test_a_backend_with_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="weights of its own"):
        mra_plugin.patch(make("roberta"), attention="adapter-test-weighted")


def test_what_cannot_be_saved_is_refused() -> None:
    with pytest.raises(TypeError, match="factor"):
        mra_plugin.patch(make("roberta"), attention="adapter-test-mean", factor=torch.ones(1))


def implementations(config: tf.PreTrainedConfig) -> list[str]:
    parts = (config, config.text_config, config.vision_config)
    return [part._attn_implementation for part in parts]


def test_configs_inside_a_config(tmp_path: object) -> None:
    model = siglip()
    parts = [model.config, model.config.text_config, model.config.vision_config]
    mra_plugin.patch(model, block_per_row=2)
    assert implementations(model.config) == ["mra"] * 3
    assert [part.mra for part in parts] == [{"block_per_row": 2}] * 3
    mra_plugin.unpatch(model)
    assert implementations(model.config) == ["sdpa"] * 3

    model.config.mra = {"block_per_row": 3}
    model.set_attn_implementation("mra")
    assert [part.mra for part in parts] == [{"block_per_row": 3}] * 3
    with torch.no_grad():
        model(input_ids=token_ids(1, 20), pixel_values=torch.randn(1, 3, 32, 32))
    model.save_pretrained(tmp_path)
    assert implementations(tf.AutoModel.from_pretrained(tmp_path).config) == ["mra"] * 3


@pytest.mark.parametrize("part", ["text_model", "vision_model"])
def test_a_part_that_was_patched_alone_is_saved(part: str, tmp_path: object) -> None:
    model = siglip()
    mra_plugin.patch(getattr(model, part), block_per_row=3)
    expected = implementations(model.config)
    assert sorted(expected) == ["mra", "sdpa", "sdpa"]
    model.save_pretrained(tmp_path)
    loaded = tf.AutoModel.from_pretrained(tmp_path)
    assert implementations(loaded.config) == expected
    assert getattr(loaded, part).config.mra == {"block_per_row": 3}
    exact = tf.AutoModel.from_pretrained(tmp_path, attn_implementation="eager")
    assert implementations(exact.config) == ["eager"] * 3


def test_cross_attention_with_plain_padding() -> None:
    # As many queries as keys, so that only the layer's own word tells that no query is padded.
    config = make("bert").config
    layer = tf.models.bert.modeling_bert.BertCrossAttention(config).eval()
    states, others = torch.randn(2, 2, 20, 32).unbind()
    real = torch.arange(20)[None] < torch.tensor([[20], [11]])
    config._attn_implementation = "sdpa"
    exact = layer(states, others, real[:, None, None, :])[0]
    config._attn_implementation = "mra"
    torch.testing.assert_close(layer(states, others, real)[0], exact, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="attention_mask"):
        layer(states, others, real[:, None, None, :].expand(2, 1, 20, 20))


def test_queries_of_another_sequence_are_not_padded() -> None:
    config = tf.Blip2QFormerConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        encoder_hidden_size=32,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = tf.Blip2QFormerModel(config).eval()
    inputs = {
        "query_embeds": torch.randn(2, 24, 32),
        "encoder_hidden_states": torch.randn(2, 24, 32),
        "encoder_attention_mask": torch.arange(24)[None] < torch.tensor([[24], [11]]),
    }
    exact = hidden(model, **inputs)
    full = hidden(mra_plugin.patch(model, block_size=8, block_per_row=9), **inputs)
    torch.testing.assert_close(full, exact, atol=2e-5, rtol=2e-5)


@torch.no_grad()
def test_a_mask_that_the_model_repeats_for_a_layer_of_its_own() -> None:
    config = tf.Siglip2VisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=4,
        num_patches=64,
    )
    torch.manual_seed(0)
    model = tf.Siglip2VisionModel(config).eval()
    for parameter in model.parameters():
        parameter.normal_(0, 0.3)
    mask = torch.ones(2, 64, dtype=torch.long)
    mask[1, 40:] = 0
    inputs = {
        "pixel_values": torch.randn(2, 64, 48),
        "pixel_attention_mask": mask,
        "spatial_shapes": torch.tensor([[8, 8], [8, 5]]),
    }
    exact = model(**inputs).pooler_output
    patched = mra_plugin.patch(model, block_per_row=64)(**inputs).pooler_output
    torch.testing.assert_close(patched, exact, atol=1e-4, rtol=1e-4)


def test_a_backend_that_is_defined_again() -> None:
    """As by a notebook's cell that runs twice; what is compiled notices as well."""

    def define(value: float) -> None:
        @register_attention("defined-again")
        class Constant:
            def __call__(self, query, key, value_, *masks, scale=None):  # type: ignore[no-untyped-def]
                return torch.full_like(query, value)

    define(1.0)
    first = mra_plugin.patch(make("roberta"), attention="defined-again")
    compiled = torch.compile(first, fullgraph=True, backend="eager")
    before = hidden(first, **INPUTS)
    assert torch.allclose(hidden(compiled, **INPUTS), before, atol=1e-5)

    define(5.0)
    after = hidden(mra_plugin.patch(make("roberta"), attention="defined-again"), **INPUTS)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(hidden(first, **INPUTS), after)
    assert torch.allclose(hidden(compiled, **INPUTS), after, atol=1e-5)
