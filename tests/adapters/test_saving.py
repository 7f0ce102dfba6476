"""What a patched or flagged model is, it still is after saving and loading."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers.tiny_models import MAKE, hidden, inputs_of, make, padded, siglip

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
    assert saved_config(tmp_path / "config")["attn_implementation"] == "mra (import mra_plugin)"


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


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "auto"), [("mra", "AutoModel"), ("efficient_attention", "SiglipModel")]
)
def test_loading_in_a_new_process(name: str, auto: str, tmp_path: Path) -> None:
    """Without this package it fails, and says what is missing, instead of attending exactly."""
    model = siglip()
    backend = {"mra": "mra", "efficient_attention": "nystrom"}[name]
    mra_plugin.patch(model if auto == "AutoModel" else model.vision_model, attention=backend)
    model.save_pretrained(tmp_path)
    load = f"from transformers import {auto}; model = {auto}.from_pretrained({str(tmp_path)!r})"
    alone = run(load)
    assert alone.returncode != 0
    error = alone.stderr.strip().splitlines()[-1]
    assert f'"{name} (import mra_plugin)"` is not supported' in error
    known = run(f"import mra_plugin; {load}; print(model.vision_model.config._attn_implementation)")
    assert known.stdout.split() == [name], known.stderr


def test_a_config_that_was_read_before_the_import(tmp_path: Path) -> None:
    mra_plugin.patch(make("roberta"), **PARAMS).save_pretrained(tmp_path)
    done = run(
        "from transformers import AutoConfig, AutoModel\n"
        f"config = AutoConfig.from_pretrained({str(tmp_path)!r})\n"
        "import mra_plugin\n"
        "print(config._attn_implementation)\n"
        "model = AutoModel.from_config(config)\n"
        "print(model.config._attn_implementation)\n"
        f"AutoModel.from_pretrained({str(tmp_path)!r}, config=config)\n"
        f"config.save_pretrained({str(tmp_path / 'again')!r})\n"
    )
    assert done.stdout.split() == ["mra", "mra"], done.stderr
    again = saved_config(tmp_path / "again")
    assert again["attn_implementation"] == "mra (import mra_plugin)"
    assert again["mra"] == PARAMS


@pytest.mark.parametrize("part", ["text_model", "vision_model"])
def test_a_plain_name_is_read_as_well(part: str, tmp_path: Path) -> None:
    """A person may write it into config.json."""
    model = siglip()
    mra_plugin.patch(getattr(model, part))
    model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace(" (import mra_plugin)", ""))
    assert "mra_plugin" not in (tmp_path / "config.json").read_text()
    loaded = tf.AutoModel.from_pretrained(tmp_path)
    assert getattr(loaded, part).config._attn_implementation == "mra"
    written = json.loads(text)["attn_implementation"]
    loaded.save_pretrained(tmp_path)
    assert saved_config(tmp_path)["attn_implementation"] == written


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


def test_a_pickle_brings_its_attention_along(tmp_path: Path) -> None:
    model = make("roberta")
    assert b"mra_plugin" not in pickle.dumps(model)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(mra_plugin.patch(model)))
    code = (
        "import pathlib, pickle, torch\n"
        f"model = pickle.loads(pathlib.Path({str(tmp_path / 'model.pickle')!r}).read_bytes())\n"
        "print(model.config._attn_implementation, *model(torch.full((1, 9), 7))[0].shape)\n"
    )
    done = run(code)
    assert done.stdout.split() == ["mra", "1", "9", "32"], done.stderr
