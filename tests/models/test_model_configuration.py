"""The config: its fields, and what it refuses."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from helpers.tiny_mra import config, hidden, make, token_ids
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers.models.mra import MraConfig as TheirConfig

import mra_plugin
from mra_plugin import MraConfig
from mra_plugin.adapters.transformers.families.mra_options import options_of
from mra_plugin.ops import MRAOptions

# What transformers' MRA has not, but keeps in its files.
OWN = {"coarse_key_size": 4, "salient_keys": 3, "block_score": "mass", "exact_up_to": 9}


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
        "coarse_key_size": None,
        "salient_keys": 0,
        "block_score": "mean",
        "exact_up_to": 0,
    }
    made = MraConfig()
    assert {name: getattr(made, name) for name in expected} == expected
    assert made.model_type == "mra"


def test_files_go_both_ways(tmp_path: Path) -> None:
    ours = config(hidden_act="relu", num_labels=3, block_per_row=7, **OWN)
    ours.save_pretrained(tmp_path)
    assert MraConfig.from_pretrained(tmp_path).to_dict() == ours.to_dict()
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "mra"

    theirs = TheirConfig.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    again = MraConfig.from_pretrained(tmp_path)
    shared = set(ours.to_dict()) & set(TheirConfig().to_dict()) | {"id2label", "block_size", *OWN}
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
        ("coarse_key_size", 3),
        ("coarse_key_size", 32),
        ("salient_keys", -1),
        ("block_score", "max"),
        ("exact_up_to", -1),
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
    ("field", "value"),
    [
        ("block_per_row", "4"),
        ("hidden_size", 64.0),
        ("approx_mode", 1),
        ("coarse_key_size", 4.0),
        ("salient_keys", "3"),
        ("block_score", None),
        ("exact_up_to", None),
    ],
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


def test_options_that_are_no_fields(tmp_path: Path) -> None:
    made = config(num_blocks=9)
    assert made.attention_options()["num_blocks"] == 9
    assert made.attention_options({"num_blocks": 5})["num_blocks"] == 5
    assert made.attention_options({"block_per_row": 3})["num_blocks"] == 8 * 3
    made.save_pretrained(tmp_path)
    assert MraConfig.from_pretrained(tmp_path).attention_options() == made.attention_options()

    few, ids = make(num_blocks=1), token_ids()
    assert not hidden(few, ids).equal(hidden(make(), ids))
    assert hidden(few, ids).equal(hidden(mra_plugin.patch(make(), num_blocks=1), ids))
    with pytest.raises(ValueError, match="num_blocks must be at least 1, got 0"):
        config(num_blocks=0)
    with pytest.raises(TypeError, match="num_blocks"):
        config(num_blocks="9")
    with pytest.raises(ValueError, match=r"num_blocks=9 .*selection"):
        config(num_blocks=9, selection="per_row")


@pytest.mark.parametrize("name", OWN)
def test_relative_positions_do_not_know_what_is_new(name: str) -> None:
    given = {name: OWN[name]}
    with pytest.raises(ValueError, match=f"relative positions does not know {name}$"):
        config(position_embedding_type="relative_key", **given)
    model = make(position_embedding_type="relative_key")
    before = model.config.to_dict()
    for params in (given, {"preset": "close"}):
        with pytest.raises(ValueError, match=f"relative positions does not know .*{name}"):
            mra_plugin.patch(model, **params)
    assert model.config.to_dict() == before


def test_every_option_is_read_from_the_config() -> None:
    stated = {field.name: getattr(MRAOptions(), field.name) for field in fields(MRAOptions)}
    stated |= {"num_blocks": 3, "block_size": 16}
    for made in (config(**stated), TheirConfig(**stated)):
        assert options_of(made, {}) == stated


def test_both_families_have_one_budget() -> None:
    theirs = TheirConfig(max_position_embeddings=200, block_per_row=3)
    ours = MraConfig(max_position_embeddings=200, block_per_row=3)
    assert options_of(theirs, {})["num_blocks"] == 6 * 3
    for params in ({"block_size": 16}, {"block_per_row": 1}, {"selection": "per_row"}):
        assert MRAOptions(**options_of(theirs, params)) == MRAOptions(**options_of(ours, params))


def test_fields_take_effect_at_once() -> None:
    model, ids = make(), token_ids()
    before = hidden(model, ids)
    model.config.block_per_row = 8
    assert not hidden(model, ids).equal(before)
    assert hidden(model, ids).equal(hidden(make(block_per_row=8), ids))
