"""More tokens than a model has learned positions for: one sentence, and a way out."""

import pytest
import torch
import transformers as tf
from helpers.tiny_models import hidden, make, token_ids
from torch import nn

import mra_plugin

COUNTED = ["albert", "bert", "distilbert", "electra", "ernie"]
REAL_ONES_COUNTED = ["camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta"]
# Of 160 rows the padding's and those before it belong to no token.
MOST = {**dict.fromkeys(COUNTED, 160), **dict.fromkeys(REAL_ONES_COUNTED, 158)}


@pytest.mark.parametrize("family", MOST)
def test_one_token_too_many(family: str) -> None:
    model = mra_plugin.patch(make(family))
    most = MOST[family]
    assert hidden(model, input_ids=token_ids(1, most)).shape[1] == most
    message = f"{most + 1} tokens, and the model positions for {most} .*mra convert"
    with pytest.raises(ValueError, match=message):
        model(token_ids(1, most + 1))
    with pytest.raises(ValueError, match=message):
        model(inputs_embeds=torch.zeros(1, most + 1, model.get_input_embeddings().embedding_dim))


@pytest.mark.parametrize("family", ["esm", "eurobert", "modernbert"])
def test_rotary_positions_have_no_end(family: str) -> None:
    assert hidden(mra_plugin.patch(make(family)), input_ids=token_ids(1, 170)).shape[1] == 170


def test_padding_that_is_not_counted() -> None:
    model = mra_plugin.patch(make("roberta"))
    ids = token_ids(2, 170)
    ids[:, 150:] = 1
    assert hidden(model, input_ids=ids, attention_mask=(ids != 1).long()).shape[1] == 170


def test_positions_that_are_given() -> None:
    model = mra_plugin.patch(make("bert"))
    positions = torch.arange(170)[None] % 160
    assert hidden(model, input_ids=token_ids(1, 170), position_ids=positions).shape[1] == 170


def test_under_a_head_and_with_the_flag() -> None:
    config = make("bert").config
    model = tf.BertForMaskedLM._from_config(config, attn_implementation="mra").eval()
    with pytest.raises(ValueError, match="mra convert"):
        model(token_ids(1, 161))


def test_the_encoder_of_an_encoder_decoder() -> None:
    config = tf.BartConfig(d_model=16, encoder_layers=1, vocab_size=64, max_position_embeddings=160)
    config.encoder_attention_heads, config.encoder_ffn_dim = 2, 16
    config.decoder_layers = 0
    encoder: nn.Module = mra_plugin.patch(tf.BartModel(config).get_encoder())
    encoder(token_ids(1, 160))
    with pytest.raises(ValueError, match="161 tokens, and the model positions for 160"):
        encoder(token_ids(1, 161))


def test_other_attention_is_left_alone() -> None:
    model = mra_plugin.unpatch(mra_plugin.patch(make("bert")))
    with pytest.raises((IndexError, RuntimeError)):
        model(token_ids(1, 161))
