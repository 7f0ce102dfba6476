"""What can't be served is refused, clearly and before a wrong result."""

import functools
import warnings

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


def tiny(model_class: type, config_class: type, **more: object) -> "functools.partial[nn.Module]":
    config = config_class(**{**_TINY, **more})
    return functools.partial(model_class._from_config, config)


OTHER_INTERFACES = {
    "longformer": tiny(tf.LongformerModel, tf.LongformerConfig, attention_window=8),
    "big_bird": tiny(tf.BigBirdModel, tf.BigBirdConfig),
    "deberta": tiny(tf.DebertaV2Model, tf.DebertaV2Config),
    "fnet": tiny(tf.FNetModel, tf.FNetConfig),
}
ENCODER_DECODERS = {
    "bart": tiny(
        tf.BartModel,
        tf.BartConfig,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
    ),
    "t5": tiny(tf.T5Model, tf.T5Config, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2),
}
GPT2 = tiny(tf.GPT2Model, tf.GPT2Config)
LLAMA = tiny(tf.LlamaModel, tf.LlamaConfig)
BERT_DECODER = tiny(tf.BertModel, tf.BertConfig, is_decoder=True)


@pytest.mark.parametrize("make_model", OTHER_INTERFACES.values(), ids=OTHER_INTERFACES)
def test_models_with_attention_of_their_own(make_model: "functools.partial[nn.Module]") -> None:
    expected = "does not use transformers' attention interface.*RoBERTa.*ViT"
    with pytest.raises(ValueError, match=expected):
        mra_plugin.patch(make_model())
    with pytest.raises(ValueError, match=expected):
        make_model(attn_implementation="mra")


@pytest.mark.parametrize("make_model", ENCODER_DECODERS.values(), ids=ENCODER_DECODERS)
def test_encoder_decoders(make_model: "functools.partial[nn.Module]") -> None:
    with pytest.raises(ValueError, match="encoder-decoder"):
        mra_plugin.patch(make_model())
    with pytest.raises(ValueError, match="encoder-decoder"):
        make_model(attn_implementation="mra")


@pytest.mark.parametrize("make_model", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_causal_models(make_model: "functools.partial[nn.Module]") -> None:
    model = make_model()
    with pytest.raises(ValueError, match="causal"):
        mra_plugin.patch(model)
    assert model.config._attn_implementation == "sdpa"
    flagged = make_model(attn_implementation="mra")
    for mask in (None, torch.ones(2, 70)):
        with pytest.raises(ValueError, match="causal"):
            flagged(token_ids(), attention_mask=mask)


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
        {"allow_is_bidirectional_skip": False},
    ],
    ids=["and", "or", "mask_is_needed"],
)
def test_masks_with_additions_of_the_model(custom: dict[str, object]) -> None:
    config = mra_plugin.patch(make("bert")).config
    with pytest.raises(ValueError, match="custom mask"):
        create_bidirectional_mask(config, torch.zeros(2, 70, 32), torch.ones(2, 70), **custom)


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
