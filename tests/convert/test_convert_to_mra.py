"""BERT and RoBERTa as models of the MRA family."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers.convert_models import FAMILY, LEARNED, make, read
from torch import Tensor

import mra_plugin
from mra_plugin.convert import stretch, to_mra
from mra_plugin.errors import UserError

FULL = {"block_size": 8, "selection": "per_row", "block_per_row": 6}
HEADS = ("ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering")
# RoBERTa's masked language model has gelu whatever its config says.
CASES = [
    (family, head, act)
    for family in FAMILY
    for head in ("Model", *HEADS)
    for act in ("gelu", "relu")
    if family == "bert" or (head, act) != ("ForMaskedLM", "relu")
]


def source(family: str, head: str = "Model", **more: object) -> tf.PreTrainedModel:
    return make(f"{FAMILY[family]}{head}", **more)


@pytest.mark.parametrize(("family", "head", "act"), CASES)
def test_with_a_full_budget_it_equals_its_source(
    family: str, head: str, act: str, tmp_path: Path
) -> None:
    old = source(family, head, hidden_act=act, type_vocab_size=2, layer_norm_eps=1e-3)
    expected = read(old, LEARNED)
    to_mra(old, ["pooler"], **FULL).save_pretrained(tmp_path)
    new = getattr(mra_plugin, f"Mra{head}").from_pretrained(tmp_path).eval()
    assert new.config.max_position_embeddings == LEARNED
    torch.testing.assert_close(read(new, LEARNED), expected, atol=2e-5, rtol=2e-5)
    # The budget is in the config's fields, and heeded.
    assert {name: getattr(new.config, name) for name in FULL} == FULL
    new.config.block_per_row = 1
    assert (read(new, LEARNED) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_padding_and_token_types_mean_the_same(family: str) -> None:
    old = source(family, type_vocab_size=2)
    real = torch.ones(1, LEARNED, dtype=torch.long)
    real[:, 30:] = 0
    ids = 5 + torch.arange(LEARNED)[None] % 20
    inputs: dict[str, Tensor] = {
        "input_ids": ids.masked_fill(real == 0, old.config.pad_token_id),
        "attention_mask": real,
        "token_type_ids": (torch.arange(LEARNED)[None] > 12).long() * real,
    }
    expected = read(old, LEARNED, **inputs)
    new = to_mra(old, ["pooler"], **FULL)
    found = read(new, LEARNED, **inputs)
    torch.testing.assert_close(found[real > 0], expected[real > 0], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_stretched_model_becomes_one_of_its_length(family: str) -> None:
    old = stretch(source(family, "ForMaskedLM"), None, 80)
    expected = read(old, 80)
    new = to_mra(old, block_size=8, selection="per_row", block_per_row=10)
    assert new.config.max_position_embeddings == 80
    torch.testing.assert_close(read(new, 80), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_tied_weights_stay_tied_and_others_apart(family: str, tied: bool, tmp_path: Path) -> None:
    old = source(family, "ForMaskedLM", tie_word_embeddings=tied)
    to_mra(old, **FULL).save_pretrained(tmp_path)
    new = mra_plugin.MraForMaskedLM.from_pretrained(tmp_path)
    words, decoder = new.get_input_embeddings().weight, new.get_output_embeddings().weight
    assert (words is decoder) is tied
    assert torch.equal(decoder, old.get_output_embeddings().weight)
    assert torch.equal(words, old.get_input_embeddings().weight)


def test_it_takes_over_tensors_type_mode_and_labels() -> None:
    old = make("RobertaForTokenClassification").to(torch.bfloat16).train()
    old.config.id2label = {0: "O", 1: "CAT", 2: "DOG"}
    new = to_mra(old, **FULL)
    assert type(new) is mra_plugin.MraForTokenClassification
    assert new.training
    assert new.dtype is torch.bfloat16
    assert new.config.id2label == {0: "O", 1: "CAT", 2: "DOG"}
    first = [one.encoder.layer[0].output.dense.weight for one in (old.roberta, new.mra)]
    assert first[0].data_ptr() == first[1].data_ptr()
    assert all(one.requires_grad and one.device.type == "cpu" for one in new.parameters())


def test_a_parameter_that_is_no_field_goes_into_config_mra(tmp_path: Path) -> None:
    to_mra(make("BertForMaskedLM"), block_size=8, num_blocks=36).save_pretrained(tmp_path)
    config = tf.AutoConfig.from_pretrained(tmp_path)
    assert config.mra == {"num_blocks": 36}
    assert config.attention_options()["num_blocks"] == 36
    assert config.block_size == 8


def test_dropping_the_head_leaves_the_encoder() -> None:
    old = make("RobertaForSequenceClassification")
    expected = read(old.roberta, LEARNED)
    new = to_mra(old, ["classifier"], **FULL)
    assert type(new) is mra_plugin.MraModel
    torch.testing.assert_close(read(new, LEARNED), expected, atol=2e-5, rtol=2e-5)


def test_of_pretraining_the_masked_language_model_stays() -> None:
    old = make("BertForPreTraining")
    expected = read(old, LEARNED)
    new = to_mra(old, ["pooler", "seq_relationship"], **FULL)
    assert type(new) is mra_plugin.MraForMaskedLM
    torch.testing.assert_close(read(new, LEARNED), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: make("BertModel"),
            "MraModel has no place for 2 tensors of BertModel: pooler.dense.weight, "
            "pooler.dense.bias; --drop NAME leaves out",
        ),
        (
            lambda: make("RobertaForSequenceClassification"),
            "MraModel has no place for 4 tensors of RobertaForSequenceClassification: "
            "classifier.dense.weight, classifier.dense.bias, classifier.out_proj.weight",
        ),
        (
            lambda: make("BertForSequenceClassification"),
            "no place for 4 tensors of BertForSequenceClassification: bert.pooler.dense.weight, "
            "bert.pooler.dense.bias, classifier.weight, classifier.bias",
        ),
        (lambda: make("BertForMultipleChoice"), "no place for 4 tensors of BertForMultipleChoice"),
        (lambda: make("BertForPreTraining"), "4 tensors of BertForPreTraining: bert.pooler"),
        (
            lambda: make("RobertaForMaskedLM", hidden_act="relu"),
            "2 tensors of RobertaForMaskedLM: lm_head.dense.weight, lm_head.dense.bias",
        ),
        (
            lambda: make("BertForQuestionAnswering", num_labels=3),
            "2 tensors of BertForQuestionAnswering: qa_outputs.weight, qa_outputs.bias",
        ),
        (
            lambda: make("BertModel", num_attention_heads=4),
            "heads of at least 32 channels, and BertModel has heads of 16",
        ),
        (
            lambda: make("ElectraModel"),
            "ElectraModel can't become an MRA model; bert, camembert, data2vec-text, roberta, xlm-",
        ),
    ],
)
def test_what_has_no_place_is_an_error(model: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError) as error:
        to_mra(model(), block_size=8)
    assert message in str(error.value)


def test_the_encoder_can_not_be_dropped() -> None:
    with pytest.raises(UserError, match="MraForMaskedLM can't do without 20 tensors"):
        to_mra(make("BertForMaskedLM"), ["attention"], block_size=8)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"block_size": 7}, "block_size must be a power of two from 8 to 128, got 7"),
        ({"block_size": 64}, "max_position_embeddings must be at least block_size"),
        ({"block_size": 8, "blocks": 1}, "no parameter 'blocks'"),
    ],
)
def test_wrong_parameters(params: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_mra(make("BertForMaskedLM"), **params)
