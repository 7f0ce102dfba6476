"""Checkpoints are loaded whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers.convert_models import make, save
from safetensors.torch import load_file, save_file

from mra_plugin.encoders.loading import load_checkpoint
from mra_plugin.errors import UserError


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def change_weights(
    folder: Path, add: dict[str, torch.Tensor] | None = None, without: str | None = None
) -> None:
    path = folder / "model.safetensors"
    state = {
        key: one for key, one in load_file(path).items() if without is None or without not in key
    }
    save_file({**state, **(add or {})}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name",
    [
        "BertForPreTraining",
        "RobertaModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "XLMRobertaForQuestionAnswering",
        "ElectraForPreTraining",
    ],
)
def test_the_class_and_data_type_are_those_of_the_checkpoint(name: str, tmp_path: Path) -> None:
    model = make(name).to(torch.bfloat16)
    # Whatever the config says.
    change_config(save(model, tmp_path), dtype="float16")
    loaded = load_checkpoint(str(tmp_path))
    assert type(loaded.model) is type(model)
    assert loaded.model.dtype is torch.bfloat16
    assert loaded.left_out == []
    assert not loaded.model.training
    for key, one in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], one), key


def test_sharded_checkpoint(tmp_path: Path) -> None:
    model = make("RobertaForMaskedLM")
    save(model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load_checkpoint(str(tmp_path)).model
    assert torch.equal(loaded.lm_head.decoder.weight, model.lm_head.decoder.weight)


def test_an_encoder_without_its_pooler_gets_none(tmp_path: Path) -> None:
    change_weights(save(make("RobertaModel"), tmp_path), without="pooler")
    loaded = load_checkpoint(str(tmp_path))
    assert loaded.model.pooler is None
    assert loaded.left_out == []


def test_what_pretraining_left_over_is_told(tmp_path: Path) -> None:
    save(make("BertForPreTraining"), tmp_path)
    change_config(tmp_path, architectures=["BertForMaskedLM"])
    loaded = load_checkpoint(str(tmp_path))
    assert loaded.left_out == [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    ]


def test_stored_position_ids_are_no_weights(tmp_path: Path) -> None:
    save(make("BertForMaskedLM"), tmp_path)
    change_weights(tmp_path, {"bert.embeddings.position_ids": torch.arange(48)[None]})
    assert load_checkpoint(str(tmp_path)).left_out == []


def test_a_tensor_too_many(tmp_path: Path) -> None:
    save(make("RobertaForMaskedLM"), tmp_path)
    change_weights(tmp_path, {"adapter.down.weight": torch.ones(2, 2)})
    with pytest.raises(UserError, match=r"has 1 tensors that RobertaForMaskedLM") as e:
        load_checkpoint(str(tmp_path))
    assert "adapter.down.weight; --drop NAME leaves out" in str(e.value)
    assert load_checkpoint(str(tmp_path), ["adapter"]).left_out == ["adapter.down.weight"]


@pytest.mark.parametrize(
    ("name", "without", "message"),
    [
        (
            "RobertaForMaskedLM",
            "lm_head",
            "no weights for 6 tensors of RobertaForMaskedLM: lm_head",
        ),
        ("RobertaModel", "layer.1.", "no weights for 16 tensors of RobertaModel: encoder.layer.1"),
        ("BertForSequenceClassification", "pooler", "2 tensors of BertForSequenceClassification"),
    ],
)
def test_a_tensor_too_few(name: str, without: str, message: str, tmp_path: Path) -> None:
    change_weights(save(make(name), tmp_path), without=without)
    with pytest.raises(UserError, match=message):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": None}, "must name the model's class in architectures, got None"),
        ({"architectures": ["BertForCooking"]}, "names the class BertForCooking, which is not"),
        ({"is_decoder": True}, "BertForMaskedLM can't take another attention: it is a decoder"),
        ({"model_type": "cook"}, "can't load"),
        ({"hidden_size": 32}, "can't load"),
    ],
)
def test_a_config_that_can_not_be(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    change_config(save(make("BertForMaskedLM"), tmp_path), **fields)
    with pytest.raises(UserError, match=message):
        load_checkpoint(str(tmp_path))


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    make("BertModel").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="can't load"):
        load_checkpoint(str(tmp_path))


def test_a_model_that_reads_no_text(tmp_path: Path) -> None:
    config = tf.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    save(tf.ViTModel(config), tmp_path)
    with pytest.raises(UserError, match="ViTModel does not read text but pixel_values"):
        load_checkpoint(str(tmp_path))
