"""The config: its fields, and what it refuses."""

import json
from pathlib import Path

import pytest
from helpers.tiny_mra import config, hidden, make, token_ids
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers.models.mra import MraConfig as TheirConfig

from mra_plugin import MraConfig


def test_defaults() -> None:
    expected = {
        "vocab_size": 50265,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-5,
        "position_embedding_type": "absolute",
        "block_per_row": 4,
        "approx_mode": "full",
        "initial_prior_first_n_blocks": 0,
        "initial_prior_diagonal_n_blocks": 0,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "block_size": 32,
        "selection": "global",
    }
    made = MraConfig()
    assert {name: getattr(made, name) for name in expected} == expected
    assert made.model_type == "mra"


def test_files_go_both_ways(tmp_path: Path) -> None:
    ours = config(hidden_act="relu", num_labels=3, block_per_row=7)
    ours.save_pretrained(tmp_path)
    assert MraConfig.from_pretrained(tmp_path).to_dict() == ours.to_dict()
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "mra"

    theirs = TheirConfig.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    again = MraConfig.from_pretrained(tmp_path)
    shared = set(ours.to_dict()) & set(TheirConfig().to_dict()) | {"id2label", "block_size"}
    for name in shared - {"transformers_version"}:
        assert getattr(again, name) == getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 65),
        ("hidden_size", 0),
        ("num_attention_heads", 0),
        ("num_hidden_layers", 0),
        ("vocab_size", 0),
        ("hidden_act", "fast"),
        ("hidden_dropout_prob", 1.5),
        ("attention_probs_dropout_prob", -0.1),
        ("block_size", 12),
        ("block_per_row", 0),
        ("approx_mode", "none"),
        ("selection", "best"),
        ("initial_prior_first_n_blocks", -1),
        ("initial_prior_diagonal_n_blocks", -1),
        ("position_embedding_type", "rotary"),
        ("max_position_embeddings", 15),
        ("pad_token_id", 64),
        ("layer_norm_eps", -1e-5),
        ("num_labels", 0),
    ],
)
def test_impossible_values_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} .*{value}"):
        config(**{field: value})


def test_unknown_problem_types_are_refused_by_name() -> None:
    # By transformers or here.
    with pytest.raises((StrictDataclassFieldValidationError, ValueError), match="problem_type"):
        config(problem_type="ranking")


@pytest.mark.parametrize(
    ("field", "value"), [("block_per_row", "4"), ("hidden_size", 64.0), ("approx_mode", 1)]
)
def test_wrong_types_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match=field):
        config(**{field: value})


def test_budget_is_the_originals() -> None:
    made = config(max_position_embeddings=512, block_size=32, block_per_row=4)
    assert made.attention_options()["num_blocks"] == 16 * 4
    made = config(max_position_embeddings=500, block_size=32, block_per_row=3)
    assert made.attention_options()["num_blocks"] == 15 * 3
    made = config(selection="per_row")
    assert made.attention_options()["block_per_row"] == 2
    assert "num_blocks" not in made.attention_options()


def test_fields_take_effect_at_once() -> None:
    model, ids = make(), token_ids()
    before = hidden(model, ids)
    model.config.block_per_row = 8
    assert not hidden(model, ids).equal(before)
    assert hidden(model, ids).equal(hidden(make(block_per_row=8), ids))
