"""What can't be served is refused, clearly and before a wrong result."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers.tiny_models import inputs_of, make, token_ids
from torch import nn
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

import mra_plugin

_TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def tiny(model_class: type, config_class: type, **more: object) -> Callable[..., nn.Module]:
    return lambda **options: model_class._from_config(config_class(**{**_TINY, **more}), **options)


OTHER_INTERFACES = {
    "longformer": tiny(tf.LongformerModel, tf.LongformerConfig, attention_window=8),
    "big_bird": tiny(tf.BigBirdModel, tf.BigBirdConfig),
    "deberta": tiny(tf.DebertaV2Model, tf.DebertaV2Config),
    "fnet": tiny(tf.FNetModel, tf.FNetConfig),
}
BART = tiny(
    tf.BartModel,
    tf.BartConfig,
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
)
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
BERT_DECODER = tiny(tf.BertModel, tf.BertConfig, is_decoder=True)


@pytest.mark.parametrize("make_model", OTHER_INTERFACES.values(), ids=OTHER_INTERFACES)
def test_models_with_attention_of_their_own(make_model: Callable[..., nn.Module]) -> None:
    expected = "does not use transformers' attention interface.*RoBERTa.*ViT"
    with pytest.raises(ValueError, match=expected):
        mra_plugin.patch(make_model())
    with pytest.raises(ValueError, match=expected):
        make_model(attn_implementation="mra")


def test_encoder_decoders() -> None:
    with pytest.raises(ValueError, match=r"causal.*encoder-decoder.*patch\(model.get_encoder"):
        mra_plugin.patch(BART())
    with pytest.raises(ValueError, match=r"BartDecoder.*causal.*encoder-decoder"):
        BART(attn_implementation="mra")
    with pytest.raises(ValueError, match=r"causal.*encoder-decoder\. Supported"):
        mra_plugin.patch(tiny(tf.T5Model, tf.T5Config, **T5)())


CAUSAL = {
    "gpt2": tiny(tf.GPT2Model, tf.GPT2Config),
    "llama": tiny(tf.LlamaModel, tf.LlamaConfig),
    # Its layers say that they are not causal; its mask is.
    "clip_text": tiny(tf.CLIPTextModel, tf.CLIPTextConfig),
    "gemma3": tiny(tf.Gemma3TextModel, tf.Gemma3TextConfig),
    "merged_attention": tiny(tf.MoonshineModel, tf.MoonshineConfig),
}


@pytest.mark.parametrize("make_model", CAUSAL.values(), ids=CAUSAL)
def test_causal_models(make_model: Callable[..., nn.Module]) -> None:
    model = make_model()
    refused = pytest.raises(ValueError, match="can't take another attention: it is causal")
    with refused:
        mra_plugin.patch(model)
    assert model.config._attn_implementation == "sdpa"
    with refused:
        model.set_attn_implementation("mra")
    assert model.config._attn_implementation == "sdpa"
    with refused:
        make_model(attn_implementation="mra")


def test_a_causal_model_is_refused_before_its_weights_are_loaded(tmp_path: Path) -> None:
    CAUSAL["llama"]().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="it is causal"):
        tf.AutoModel.from_pretrained(tmp_path, attn_implementation="mra")


def test_a_causal_part_beside_an_encoder() -> None:
    """The whole is refused, its encoder is not; so is it where the flag names parts."""
    config = tf.CLIPConfig(
        text_config={**_TINY, "projection_dim": 8},
        vision_config={**_TINY, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    model = tf.CLIPModel(config)
    with pytest.raises(ValueError, match="it is causal"):
        mra_plugin.patch(model)
    mra_plugin.patch(model.vision_model)
    assert model.vision_model.config._attn_implementation == "mra"
    part = tf.CLIPModel._from_config(config, attn_implementation={"vision_config": "mra"})
    assert part.text_model.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="it is causal"):
        tf.CLIPModel._from_config(config, attn_implementation={"text_config": "mra"})


_SWIN = {"image_size": 16, "embed_dim": 16, "depths": [1], "num_attention_heads": [2]}
_VISION = {"image_size": 8, "patch_size": 4}
MORE_THAN_PRODUCTS = {
    "t5": (tiny(tf.T5EncoderModel, tf.T5Config, **T5), "relative positions"),
    "swin": (tiny(tf.SwinModel, tf.SwinConfig, **_SWIN, window_size=4), "relative positions"),
    "beit": (
        tiny(tf.BeitModel, tf.BeitConfig, **_VISION, use_relative_position_bias=True),
        "relative positions",
    ),
    "conformer": (
        tiny(
            tf.Wav2Vec2ConformerModel,
            tf.Wav2Vec2ConformerConfig,
            num_conv_pos_embedding_groups=2,
        ),
        "relative positions",
    ),
    "pixtral": (tiny(tf.PixtralVisionModel, tf.PixtralVisionConfig, **_VISION), "plain padding"),
    "mllama": (
        tiny(tf.MllamaVisionModel, tf.MllamaVisionConfig, attention_heads=2, **_VISION),
        "says that it is not causal",
    ),
}


@pytest.mark.parametrize(("make_model", "why"), MORE_THAN_PRODUCTS.values(), ids=MORE_THAN_PRODUCTS)
def test_layers_that_need_more_than_products(
    make_model: Callable[..., nn.Module], why: str
) -> None:
    refused = pytest.raises(ValueError, match=f"can't take another attention: .*{why}")
    with torch.device("meta"):
        with refused:
            mra_plugin.patch(make_model())
        with refused:
            make_model(attn_implementation="mra")


def test_positions_of_another_kind_are_served() -> None:
    with torch.device("meta"):
        mra_plugin.patch(tiny(tf.BeitModel, tf.BeitConfig, **_VISION)())
        conformer = tiny(
            tf.Wav2Vec2ConformerModel,
            tf.Wav2Vec2ConformerConfig,
            num_conv_pos_embedding_groups=2,
            position_embeddings_type="rotary",
        )
        mra_plugin.patch(conformer())


def test_a_model_without_attention() -> None:
    with pytest.raises(ValueError, match="no layer"):
        mra_plugin.patch(tf.JanusVQVAE(tf.JanusVQVAEConfig(base_channels=32, num_res_blocks=1)))


def test_an_encoder_made_a_decoder() -> None:
    with pytest.raises(ValueError, match="is_decoder"):
        mra_plugin.patch(BERT_DECODER())
    with pytest.raises(ValueError, match="is_decoder"):
        BERT_DECODER(attn_implementation="mra")


def test_what_is_not_a_transformers_model() -> None:
    with pytest.raises(TypeError, match="Linear"):
        mra_plugin.patch(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="str"):
        mra_plugin.patch("roberta-base")
    with pytest.raises(TypeError, match="Linear"):
        mra_plugin.unpatch(nn.Linear(2, 2))


@pytest.mark.parametrize("family", ["bert", "modernbert", "albert"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_four_dimensional_masks(family: str, dtype: torch.dtype) -> None:
    model = mra_plugin.patch(make(family))
    custom = torch.ones(70, 70, dtype=torch.bool).tril().to(dtype).expand(2, 1, 70, 70)
    with pytest.raises(ValueError, match=r"attention_mask must be a plain padding mask.*70, 70"):
        model(**inputs_of(family, custom))


def test_three_dimensional_masks() -> None:
    model = mra_plugin.patch(make("bert"))
    with pytest.raises(ValueError, match="attention_mask"):
        model(**inputs_of("bert", torch.ones(2, 70, 70)))


@pytest.mark.parametrize(
    "custom",
    [
        {"and_mask_function": lambda batch, head, q, k: k <= q},
        {"or_mask_function": lambda batch, head, q, k: k == 0},
    ],
    ids=["and", "or"],
)
def test_masks_with_additions_of_the_model(custom: dict[str, object]) -> None:
    config = mra_plugin.patch(make("bert")).config
    with pytest.raises(ValueError, match="custom mask"):
        create_bidirectional_mask(config, torch.zeros(2, 70, 32), torch.ones(2, 70), **custom)


def test_a_mask_that_the_model_needs_is_made() -> None:
    config = mra_plugin.patch(make("bert")).config
    mask = create_bidirectional_mask(
        config, torch.zeros(2, 70, 32), None, allow_is_bidirectional_skip=False
    )
    assert mask.shape == (2, 1, 1, 70)
    assert mask.all()


def test_packed_sequences() -> None:
    model = mra_plugin.patch(make("bert"))
    positions = torch.arange(35).repeat(2)[None]
    with pytest.raises(ValueError, match="packed"):
        create_causal_mask(model.config, torch.zeros(1, 70, 32), None, None, positions)
    with pytest.raises(ValueError, match="cu_seq_lens_q"):
        model(token_ids(1), cu_seq_lens_q=torch.tensor([0, 35, 70], dtype=torch.int32))


@pytest.mark.parametrize("asked", ["position_bias", "softcap", "s_aux"])
def test_attention_with_more_than_the_products(asked: str) -> None:
    model = mra_plugin.patch(make("roberta"))
    with pytest.raises(ValueError, match=asked):
        model(token_ids(), **{asked: 1.0})


def test_a_causal_call() -> None:
    model = mra_plugin.patch(make("roberta"))
    with pytest.raises(ValueError, match="causal"):
        model(token_ids(), is_causal=True)


def test_a_mask_of_another_length() -> None:
    model = mra_plugin.patch(make("bert"))
    with pytest.raises(
        ValueError, match=r"bool \[2, 70\] at this layer, got torch.bool \[2, 1, 1, 60\]"
    ):
        model(**inputs_of("bert", torch.ones(2, 60)))


def test_dropout_of_attention_is_said_to_be_missing_once() -> None:
    from mra_plugin.adapters.transformers import attention_function

    model = mra_plugin.patch(make("roberta", attention_probs_dropout_prob=0.1))
    attention_function._said.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.eval()(token_ids())
    with pytest.warns(UserWarning, match="attention dropout"):
        model.train()(token_ids())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(token_ids())


def test_layers_from_a_table_of_classes_are_refused() -> None:
    """SAM picks its layers by the implementation's name, and would go on with its own."""
    config = tf.SamVisionConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=4
    )
    with pytest.raises(ValueError, match="SamVisionModel can't take another attention"):
        mra_plugin.patch(tf.SamVisionModel(config))
    with pytest.raises(ValueError, match="SamVisionModel can't take another attention"):
        tf.SamVisionModel._from_config(config, attn_implementation="mra")
