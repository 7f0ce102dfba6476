"""What a patched or flagged model is, it still is after saving and loading."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers.tiny_models import MAKE, hidden, inputs_of, make, padded

import mra_plugin

PARAMS = {"block_size": 8, "block_per_row": 2, "approx_mode": "sparse"}


def saved_config(path: Path) -> dict[str, object]:
    return json.loads((path / "config.json").read_text())


@pytest.mark.parametrize("family", sorted(MAKE))
def test_patched_saved_and_loaded(family: str, tmp_path: Path) -> None:
    model = mra_plugin.patch(make(family), **PARAMS)
    model.save_pretrained(tmp_path / "once")
    once = tf.AutoModel.from_pretrained(tmp_path / "once").eval()
    once.save_pretrained(tmp_path / "twice")
    twice = type(model).from_pretrained(tmp_path / "twice").eval()

    inputs = inputs_of(family, padded())
    out = hidden(model, **inputs)
    for loaded in (once, twice):
        assert loaded.config._attn_implementation == "mra"
        assert loaded.config.mra == PARAMS
        assert torch.equal(hidden(loaded, **inputs), out)
    assert saved_config(tmp_path / "twice") == saved_config(tmp_path / "once")
    assert "_attention_before_patch" not in saved_config(tmp_path / "once")


def test_the_flag_alone_is_saved(tmp_path: Path) -> None:
    make("roberta").save_pretrained(tmp_path / "exact")
    assert "attn_implementation" not in saved_config(tmp_path / "exact")
    flagged = tf.AutoModel.from_pretrained(tmp_path / "exact", attn_implementation="mra")
    flagged.save_pretrained(tmp_path / "flagged")
    loaded = tf.AutoModelForTokenClassification.from_pretrained(tmp_path / "flagged")
    assert loaded.config._attn_implementation == "mra"
    tf.AutoConfig.from_pretrained(tmp_path / "flagged").save_pretrained(tmp_path / "config")
    assert saved_config(tmp_path / "config")["attn_implementation"] == "mra"


def test_parameters_given_while_loading(tmp_path: Path) -> None:
    make("roberta").save_pretrained(tmp_path)
    for auto in (tf.AutoModel, tf.RobertaModel):
        loaded = auto.from_pretrained(tmp_path, attn_implementation="mra", mra=PARAMS).eval()
        assert loaded.config.mra == PARAMS
        expected = mra_plugin.patch(make("roberta"), **PARAMS)
        inputs = inputs_of("roberta", padded())
        assert torch.equal(hidden(loaded, **inputs), hidden(expected, **inputs))
    with pytest.raises(ValueError, match="block_size"):
        tf.AutoModel.from_pretrained(tmp_path, attn_implementation="mra", mra={"block_size": 7})


def test_the_saved_choice_can_be_overridden(tmp_path: Path) -> None:
    model = make("roberta")
    exact = hidden(model, **inputs_of("roberta", padded()))
    mra_plugin.patch(model, **PARAMS).save_pretrained(tmp_path)
    for auto in (tf.AutoModel, tf.RobertaModel):
        loaded = auto.from_pretrained(tmp_path, attn_implementation="sdpa").eval()
        assert loaded.config._attn_implementation == "sdpa"
        assert torch.equal(hidden(loaded, **inputs_of("roberta", padded())), exact)
    loaded.save_pretrained(tmp_path)
    assert "attn_implementation" not in saved_config(tmp_path)
    loaded = tf.AutoModel.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"


def test_an_unpatched_model_saves_nothing_of_it(tmp_path: Path) -> None:
    model = make("roberta")
    model.save_pretrained(tmp_path / "before")
    mra_plugin.unpatch(mra_plugin.patch(model, **PARAMS)).save_pretrained(tmp_path / "after")
    assert saved_config(tmp_path / "after") == saved_config(tmp_path / "before")


def test_loading_in_a_new_process(tmp_path: Path) -> None:
    mra_plugin.patch(make("roberta")).save_pretrained(tmp_path)
    load = f"from transformers import RobertaModel; RobertaModel.from_pretrained({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", f"import mra_plugin; {load}"], check=True)
    # Without this package it fails, loudly, instead of attending exactly.
    alone = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True)
    assert alone.returncode != 0
    assert 'attn_implementation="mra"` is not supported' in alone.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, mra_plugin\n"
        "heavy = {'torch', 'transformers', 'triton', 'xformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'patch', 'unpatch'} <= set(dir(mra_plugin))\n"
        "import mra_plugin.ops\n"
        "heavy = {'transformers', 'triton', 'xformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from transformers.modeling_utils import AttentionInterface, PreTrainedModel\n"
        "from transformers.masking_utils import AttentionMaskInterface\n"
        "assert 'mra' in AttentionInterface() and 'mra' in AttentionMaskInterface()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_without_transformers_the_rest_works() -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "import mra_plugin, mra_plugin.ops, mra_plugin.registry\n"
        "mra_plugin.registry.build_attention('mra', block_per_row=2)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_parameters_beside_a_config(tmp_path: Path) -> None:
    """So does sentence-transformers hand on its ``model_kwargs``."""
    make("roberta").save_pretrained(tmp_path)
    config = tf.AutoConfig.from_pretrained(tmp_path)
    asked = {"config": config, "attn_implementation": "mra"}
    model = tf.AutoModel.from_pretrained(tmp_path, **asked, mra={"block_per_row": 3})
    assert model.config.mra == {"block_per_row": 3}
    assert tf.AutoModel.from_config(**asked, mra={"block_size": 8}).config.mra == {"block_size": 8}
    assert config.mra is None
    with pytest.raises(ValueError, match="block_per_rows"):
        tf.AutoModel.from_pretrained(tmp_path, **asked, mra={"block_per_rows": 3})


def test_what_is_saved_says_what_it_needs(tmp_path: Path) -> None:
    model = mra_plugin.patch(make("roberta"))
    model.save_pretrained(tmp_path)
    assert "import mra_plugin" in (tmp_path / "config.json").read_text()
    again = tf.AutoModel.from_pretrained(tmp_path)
    mra_plugin.unpatch(again).save_pretrained(tmp_path)
    assert "mra_plugin" not in (tmp_path / "config.json").read_text()


def test_a_pickle_brings_its_attention_along(tmp_path: Path) -> None:
    model = make("roberta")
    assert b"mra_plugin" not in pickle.dumps(model)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(mra_plugin.patch(model)))
    code = (
        "import pathlib, pickle, torch\n"
        f"model = pickle.loads(pathlib.Path({str(tmp_path / 'model.pickle')!r}).read_bytes())\n"
        "print(model.config._attn_implementation, *model(torch.full((1, 9), 7))[0].shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mra", "1", "9", "32"]
