"""Presets in models: written out in ``config.mra`` however MRA attention was asked for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from helpers import layer_families
from helpers.tiny_models import hidden, inputs_of, make, padded, token_ids
from helpers.tiny_mra import make as make_mra
from torch import nn

import mra_plugin
from mra_plugin.ops import PRESETS, preset_options
from mra_plugin.registry import build_attention

CLOSE, PAPER = preset_options("close"), preset_options("paper")
INPUTS = inputs_of("roberta", padded())
# Fewer blocks than there are, and nothing exact for being short.
SMALL = {"block_size": 8, "block_per_row": 1, "coarse_key_size": 2, "exact_up_to": 0}


def saved_params(folder: Path) -> Any:
    return json.loads((folder / "config.json").read_text()).get("mra")


def test_patch_writes_the_options_out() -> None:
    model = make("roberta")
    assert mra_plugin.patch(model).config.mra == CLOSE
    assert mra_plugin.patch(model, preset="close").config.mra == CLOSE
    assert mra_plugin.patch(model, preset="paper").config.mra == PAPER
    given = mra_plugin.patch(model, attention="mra", preset="close", **SMALL).config.mra
    assert given == {**CLOSE, **SMALL}
    assert mra_plugin.patch(model, block_per_row=8).config.mra == {"block_per_row": 8}
    # How it is computed says nothing of what.
    assert mra_plugin.patch(model, impl="eager").config.mra == {**CLOSE, "impl": "eager"}


def test_every_option_of_a_preset_is_heeded() -> None:
    exact = hidden(make("roberta"), **INPUTS)
    short = hidden(mra_plugin.patch(make("roberta"), preset="close"), **INPUTS)
    found = hidden(mra_plugin.patch(make("roberta"), preset="close", **SMALL), **INPUTS)
    real = padded().bool()
    torch.testing.assert_close(short[real], exact[real], atol=2e-5, rtol=2e-5)
    layer = mra_plugin.patch(make("roberta"), **{**CLOSE, **SMALL})
    assert torch.equal(hidden(layer, **INPUTS), found)
    papers = hidden(mra_plugin.patch(make("roberta"), preset="paper", **SMALL), **INPUTS)
    assert (papers - found).abs().max() > 1e-3


def test_what_is_refused_changes_nothing() -> None:
    model = mra_plugin.patch(make("roberta"), block_per_row=2)
    before = model.config.to_dict()
    with pytest.raises(ValueError, match='preset must be "paper" or "close", got \'near\''):
        mra_plugin.patch(model, preset="near")
    with pytest.raises(ValueError, match="preset='close' is a set of options of attention 'mra'"):
        mra_plugin.patch(model, attention="ulysses", preset="close")
    with pytest.raises(ValueError, match="block_size"):
        mra_plugin.patch(model, preset="close", block_size=12)
    assert model.config.to_dict() == before

    config = make("roberta").config
    config.mra = {"preset": "near"}
    with pytest.raises(ValueError, match="near"):
        tf.RobertaModel._from_config(config, attn_implementation="mra")


def by_flag(folder: Path) -> nn.Module:
    return tf.AutoModel.from_pretrained(folder, attn_implementation="mra")


def beside_a_config(folder: Path) -> nn.Module:
    config = tf.AutoConfig.from_pretrained(folder)
    model = tf.AutoModel.from_pretrained(folder, config=config, attn_implementation="mra")
    assert config.mra is None
    return model


def set_later(folder: Path) -> nn.Module:
    model = tf.AutoModel.from_pretrained(folder)
    model.set_attn_implementation("mra")
    return model


def set_in_the_config(folder: Path) -> nn.Module:
    model = tf.AutoModel.from_pretrained(folder)
    model.config._attn_implementation = "mra"
    return model


@pytest.mark.parametrize("load", [by_flag, beside_a_config, set_later, set_in_the_config])
def test_the_flag_alone_means_close_and_is_saved(
    load: Callable[[Path], nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("roberta").save_pretrained(tmp_path / "exact")
    assert saved_params(tmp_path / "exact") is None
    model = load(tmp_path / "exact").eval()
    if load is not set_in_the_config:
        assert model.config.mra == CLOSE
    expected = hidden(mra_plugin.patch(make("roberta")), **INPUTS)
    assert torch.equal(hidden(model, **INPUTS), expected)
    model.save_pretrained(tmp_path / "flagged")
    assert saved_params(tmp_path / "flagged") == CLOSE
    # And that is what it means from then on.
    monkeypatch.setitem(PRESETS, "close", replace(PRESETS["close"], block_per_row=77))
    again = tf.AutoModel.from_pretrained(tmp_path / "flagged")
    assert again.config.mra == CLOSE
    assert mra_plugin.patch(again, preset="close").config.mra["block_per_row"] == 77


def test_a_preset_beside_the_flag(tmp_path: Path) -> None:
    make("roberta").save_pretrained(tmp_path)
    given = {"preset": "close", "block_per_row": 3}
    model = tf.AutoModel.from_pretrained(tmp_path, attn_implementation="mra", mra=given)
    assert model.config.mra == {**CLOSE, "block_per_row": 3}
    model = by_flag(tmp_path)
    assert mra_plugin.unpatch(model).config.mra is None


@pytest.mark.parametrize("stored", [{}, {"block_per_row": 3}, {"impl": "eager"}], ids=str)
def test_checkpoints_of_version_0_1_stay_what_they_are(
    stored: dict[str, Any], tmp_path: Path
) -> None:
    """An empty ``config.mra`` is what `patch` without parameters left."""
    config = make("roberta").config
    config.mra = stored
    config._attn_implementation = "mra"
    tf.RobertaModel(config).save_pretrained(tmp_path)
    loaded = tf.AutoModel.from_pretrained(tmp_path)
    assert loaded.config.mra == saved_params(tmp_path) == stored
    attended = build_attention("mra", **stored)
    query, key, value = torch.randn(3, 1, 2, 400, 16).unbind()
    layer = loaded.encoder.layer[0].attention.self
    out = tf.AttentionInterface()["mra"](layer, query, key, value, None)[0]
    assert torch.equal(out.transpose(1, 2), attended(query, key, value))


def siglip() -> nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2}
    text = {**sizes, "vocab_size": 64, "projection_size": 16}
    vision = {**sizes, "image_size": 32, "patch_size": 4}
    return tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision)).eval()


@pytest.mark.parametrize("later", [False, True])
def test_configs_inside_a_config(later: bool, tmp_path: Path) -> None:
    siglip().save_pretrained(tmp_path / "exact")
    model = set_later(tmp_path / "exact") if later else by_flag(tmp_path / "exact")
    parts = [model.config, model.config.text_config, model.config.vision_config]
    assert [part.mra for part in parts] == [CLOSE] * 3
    model.save_pretrained(tmp_path / "flagged")
    whole = json.loads((tmp_path / "flagged" / "config.json").read_text())
    for written in (whole, whole["text_config"], whole["vision_config"]):
        assert written["mra"] == CLOSE
    with torch.no_grad():
        tf.AutoModel.from_pretrained(tmp_path / "flagged")(
            input_ids=token_ids(1, 20), pixel_values=torch.randn(1, 3, 32, 32)
        )


@pytest.mark.parametrize(
    "make_one", [lambda: layer_families.make("Mra"), make_mra], ids=["transformers", "ours"]
)
def test_the_mra_family_keeps_its_own(make_one: Callable[[], Any], tmp_path: Path) -> None:
    model = make_one()
    ids = token_ids(1, 100)
    mra_plugin.patch(model)
    own = hidden(model, input_ids=ids)
    assert model.config.mra == {}
    model = make_one()
    model.set_attn_implementation("mra")
    assert getattr(model.config, "mra", None) is None
    assert torch.equal(hidden(model, input_ids=ids), own)
    model.save_pretrained(tmp_path)
    assert saved_params(tmp_path) is None
    # Unless it is asked for something else.
    mra_plugin.patch(model, preset="close", **SMALL)
    assert model.config.mra == {**CLOSE, **SMALL}
    assert (hidden(model, input_ids=ids) - own).abs().max() > 1e-4
    model.config.mra = {"preset": "close"}
    exact = hidden(model, input_ids=ids)
    torch.testing.assert_close(exact, hidden(mra_plugin.patch(model, "sdpa"), input_ids=ids),
                               atol=1e-4, rtol=1e-4)  # fmt: skip


def test_an_attention_by_name_takes_a_preset() -> None:
    assert build_attention("mra", preset="close").options == CLOSE
    assert build_attention("mra", preset="close", **SMALL).options == {**CLOSE, **SMALL}
    # By itself it is what the function is.
    assert build_attention("mra").options == PAPER
    assert build_attention("ulysses", preset="close").inner.options == CLOSE
    with pytest.raises(ValueError, match="preset must be"):
        build_attention("mra", preset="near")
