"""`mra convert` from end to end."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
import transformers as tf
from helpers.convert_models import LEARNED_POSITIONS, ROTARY, make, read, save
from typer.testing import Result

import mra_plugin
from mra_plugin.convert import job, stretch
from mra_plugin.encoders.demo import demo_model
from mra_plugin.ops import preset_options

Run = Callable[..., Result]
LONG = 200
CLOSE, PAPER = preset_options("close"), preset_options("paper")


def refusal(result: Result) -> str:
    """The one line that a refused command prints."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def config_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    "name",
    [
        "BertForPreTraining",
        "CamembertForTokenClassification",
        "DistilBertForMaskedLM",
        "ElectraForPreTraining",
        "RobertaForMaskedLM",
        "RobertaForMultipleChoice",
        "RobertaForQuestionAnswering",
        "RobertaForSequenceClassification",
    ],
)
def test_class_heads_and_ties_stay(name: str, mra_convert: Run, tmp_path: Path) -> None:
    more = {"dim": 64, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 48}
    source = make(name, **(more if "Distil" in name else {}))
    save(source, tmp_path / "in")
    expected = read(source, 40)
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    assert result.exit_code == 0, result.output
    assert f"({name}, " in result.stdout
    assert "modules" not in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "letters.txt", "out"]

    # As a user loads it: a short input is exact.
    loaded = type(source).from_pretrained(tmp_path / "out").eval()
    assert loaded.config._attn_implementation == "mra"
    assert loaded.config.mra == CLOSE
    summary = " ".join(result.stdout.split())
    assert f"attention mra (preset=close) exact up to {CLOSE['exact_up_to']} tokens" in summary
    torch.testing.assert_close(read(loaded, 40), expected, atol=2e-5, rtol=2e-5)
    assert read(loaded, LONG).isfinite().all()
    words, decoder = loaded.get_input_embeddings(), loaded.get_output_embeddings()
    if decoder is not None:
        assert decoder.weight is words.weight
    old, new = source.state_dict(), loaded.state_dict()
    assert old.keys() == new.keys()
    for key in old:
        if "position_embeddings" not in key:
            assert torch.equal(old[key], new[key]), key
    assert tf.AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == LONG


@pytest.mark.parametrize("positions", ["tile", "interpolate"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_stored_data_type_stays(
    dtype: torch.dtype, positions: str, mra_convert: Run, tmp_path: Path
) -> None:
    save(make("RobertaModel").to(dtype), tmp_path / "in")
    result = mra_convert(
        tmp_path / "in", tmp_path / "out", "--max-length", LONG, "--positions", positions
    )
    assert result.exit_code == 0, result.output
    assert str(dtype).removeprefix("torch.") in result.stdout
    assert tf.AutoModel.from_pretrained(tmp_path / "out").dtype is dtype


@pytest.mark.parametrize(
    "family", ["mra", "nystromformer", "own mra", "own nystromformer", "esm", "albert"]
)
def test_other_families(family: str, mra_convert: Run, tmp_path: Path) -> None:
    source = LEARNED_POSITIONS[family]()
    save(source, tmp_path / "in")
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", 400)
    assert result.exit_code == 0, result.output
    loaded = tf.AutoModel.from_pretrained(tmp_path / "out").eval()
    own = "mra" in family
    assert loaded.config.mra == ({} if own else CLOSE)
    if own:
        assert loaded.config.attention_options()["num_blocks"] == 400 // 32
    # Attention is MRA's: with the smallest budget it is another.
    before = read(loaded, 400)
    mra_plugin.patch(loaded, num_blocks=1)
    assert (read(loaded, 400) - before).abs().max() > 1e-3


@pytest.mark.parametrize("family", ROTARY)
def test_rotary_positions(family: str, mra_convert: Run, tmp_path: Path) -> None:
    save(ROTARY[family](), tmp_path / "in")
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", 400)
    assert result.exit_code == 0, result.output
    assert "400, from 160; rotary positions" in result.stdout
    loaded = tf.AutoModel.from_pretrained(tmp_path / "out")
    assert loaded.config.max_position_embeddings == 400
    assert loaded.config._attn_implementation == "mra"


def test_interpolated(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaForMaskedLM"), tmp_path / "in")
    result = mra_convert(
        tmp_path / "in", tmp_path / "out", "--max-length", LONG, "--positions", "interpolate"
    )
    assert result.exit_code == 0, result.output
    assert "200, from 48; learned positions, interpolated" in result.stdout
    assert "equals the old one with interpolated positions" in result.stdout
    expected = stretch(make("RobertaForMaskedLM"), None, LONG, "interpolate").state_dict()
    found = tf.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(found[key], one) for key, one in expected.items())


def test_to_mra(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaForMaskedLM"), tmp_path / "in")
    result = mra_convert(
        tmp_path / "in", tmp_path / "out", "--max-length", LONG, "--to", "mra",
        "--block-per-row", 3, "--set", "block_size=16", "--set", "approx_mode=sparse",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "(MraForMaskedLM, " in result.stdout
    loaded = tf.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    assert type(loaded) is mra_plugin.MraForMaskedLM
    config = loaded.config
    assert (config.block_per_row, config.block_size, config.approx_mode) == (3, 16, "sparse")
    assert config.max_position_embeddings == LONG
    assert "mra" not in config_of(tmp_path / "out")
    # transformers' own class reads it too.
    assert set(tf.MraForMaskedLM.from_pretrained(tmp_path / "out").state_dict()) == set(
        loaded.state_dict()
    )


def test_to_mra_keeps_the_papers_scheme(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaForMaskedLM"), tmp_path / "in")

    def fields_of(*arguments: object) -> dict[str, object]:
        command = [tmp_path / "in", tmp_path / "out", "--to", "mra", "--overwrite", *arguments]
        result = mra_convert(*command)
        assert result.exit_code == 0, result.output
        config = config_of(tmp_path / "out")
        assert "mra" not in config
        return {name: config[name] for name in PAPER if name != "num_blocks"}

    others = {name: value for name, value in PAPER.items() if name != "num_blocks"}
    assert fields_of() == {**others, "block_per_row": 8}
    others = {name: value for name, value in CLOSE.items() if name != "num_blocks"}
    assert fields_of("--preset", "close", "--exact-up-to", 7) == {**others, "exact_up_to": 7}


def test_to_mra_with_a_pooler(mra_convert: Run, tmp_path: Path) -> None:
    save(make("BertModel"), tmp_path / "in")
    command = [tmp_path / "in", tmp_path / "out", "--max-length", LONG, "--to", "mra"]
    assert "no place for 2 tensors of BertModel: pooler.dense.weight" in refusal(
        mra_convert(*command)
    )
    assert not (tmp_path / "out").exists()
    result = mra_convert(*command, "--drop", "pooler")
    assert result.exit_code == 0, result.output
    assert "left out   pooler.dense.weight, pooler.dense.bias" in result.stdout


def test_another_attention(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    result = mra_convert(
        tmp_path / "in", tmp_path / "out", "--max-length", LONG, "--attention", "nystrom",
        "--set", "num_landmarks=16",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "attention  nystrom (num_landmarks=16)" in result.stdout
    assert "with exact attention the new model equals the old" in result.stdout
    stored = tf.AutoModel.from_pretrained(tmp_path / "out").config.efficient_attention
    assert stored == {"name": "nystrom", "num_landmarks": 16}


def test_a_second_time_keeps_the_parameters(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    first = ["--max-length", LONG, "--block-per-row", 2, "--set", "block_size=8"]
    assert mra_convert(tmp_path / "in", tmp_path / "once", *first).exit_code == 0
    again = ["--max-length", 2 * LONG, "--set", "selection=per_row"]
    assert mra_convert(tmp_path / "once", tmp_path / "twice", *again).exit_code == 0
    params = {"block_per_row": 2, "block_size": 8}
    assert config_of(tmp_path / "once")["mra"] == params
    assert config_of(tmp_path / "twice")["mra"] == {**params, "selection": "per_row"}


def test_presets(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    over = ["--exact-up-to", 0, "--salient-keys", 2, "--block-per-row", 1, "--set", "impl=eager"]
    result = mra_convert(tmp_path / "in", tmp_path / "once", "--preset", "close", *over)
    assert result.exit_code == 0, result.output
    changed = {"exact_up_to": 0, "salient_keys": 2, "block_per_row": 1, "impl": "eager"}
    assert config_of(tmp_path / "once")["mra"] == {**CLOSE, **changed}
    assert "attention mra (preset=close, " in " ".join(result.stdout.split())
    # One that is given goes before what the checkpoint has.
    assert mra_convert(tmp_path / "once", tmp_path / "twice", "--preset", "paper").exit_code == 0
    assert config_of(tmp_path / "twice")["mra"] == PAPER
    refused = mra_convert(
        tmp_path / "in", tmp_path / "no", "--attention", "ulysses", "--preset", "close"
    )
    assert "preset='close' is a set of options of attention 'mra'" in refusal(refused)


def test_an_empty_config_mra_stays_the_papers(mra_convert: Run, tmp_path: Path) -> None:
    """As `patch` left it in version 0.1."""
    model = mra_plugin.patch(make("RobertaModel"))
    model.config.mra = {}
    save(model, tmp_path / "in")
    assert mra_convert(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert config_of(tmp_path / "out")["mra"] == PAPER


@pytest.mark.parametrize(
    "options",
    [
        ["--salient-keys", 3],
        ["--salient-keys", 3, "--approx-mode", "sparse", "--coarse-key-size", 2],
        ["--num-blocks", 2, "--exact-up-to", 9, "--block-score", "mass"],
        ["--selection", "per_row", "--block-per-row", 1, "--salient-keys", 99],
    ],
    ids=str,
)
def test_a_full_budget_is_exact_with_any_options(
    options: list[object], mra_convert: Run, tmp_path: Path
) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--block-size", 8, *options)
    assert result.exit_code == 0, result.output


def test_the_summary_tells_closeness_by_length(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    result = mra_convert(
        tmp_path / "in", tmp_path / "out", "--max-length", 256, "--lengths", "128,32,256",
        "--block-per-row", 1, "--set", "block_size=8",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line[:1] == " " and "0." in line]
    assert [row[0] for row in rows] == ["32", "128", "256"]
    assert all(0.2 < float(one) < 0.9999 for row in rows for one in row[1:])
    assert "learned positions, repeated" in result.stdout


@pytest.mark.parametrize(
    ("longest", "lengths"),
    [
        (100, [100]),
        (512, [512]),
        (600, [512, 600]),
        (4096, [512, 1024, 2048, 4096]),
        (100000, [512, 1024, 2048, 4096, 8192]),
    ],
)
def test_lengths_of_the_summary(longest: int, lengths: list[int]) -> None:
    assert job.summary_lengths(longest) == lengths


def test_a_failed_check_leaves_nothing(
    mra_convert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    (tmp_path / "out").mkdir()

    def spoil(model: tf.PreTrainedModel, *arguments: object) -> tf.PreTrainedModel:
        stretched = stretch(model, *arguments)
        with torch.no_grad():
            stretched.embeddings.position_embeddings.weight[40] *= -1
        return stretched

    monkeypatch.setattr(job, "stretch", spoil)
    line = refusal(mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG))
    assert "with a full budget the new model differs from the old one by" in line
    assert "nothing was written" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "letters.txt", "out"]
    assert not any((tmp_path / "out").iterdir())


def test_overwrite(mra_convert: Run, tmp_path: Path) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    command = [tmp_path / "in", tmp_path / "out", "--max-length"]
    assert mra_convert(*command, 64).exit_code == 0
    assert "is not empty; --overwrite replaces" in refusal(mra_convert(*command, 80))
    assert config_of(tmp_path / "out")["max_position_embeddings"] == 66
    assert mra_convert(*command, 80, "--overwrite").exit_code == 0
    assert config_of(tmp_path / "out")["max_position_embeddings"] == 82


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-length", "0"], "--max-length takes positive whole numbers, got '0'"),
        (["--max-length", "4k"], "--max-length takes positive whole numbers, got '4k'"),
        (["--max-length", "47"], "at least the 48 tokens that the model reads already, got 47"),
        (["--positions", "repeat"], "--positions must be tile or interpolate, got 'repeat'"),
        (["--attention", "mrs"], "--attention: there is no attention 'mrs' (did you mean 'mra'?)"),
        (["--block-per-row", "0"], "--block-per-row takes positive whole numbers, got '0'"),
        (["--set", "block_size"], "--set takes NAME=VALUE, got 'block_size'"),
        (["--set", "block_size=7"], "--attention: block_size must be a power of two from 8"),
        (["--set", "blocksize=8"], "attention 'mra' has no parameter 'blocksize' (did you mean"),
        (
            ["--attention", "sdpa", "--block-per-row", "8"],
            "'sdpa' has no parameter 'block_per_row'",
        ),
        (["--to", "longformer"], "--to must be mra, got 'longformer'"),
        (["--to", "mra", "--attention", "sdpa"], "--to mra goes with --attention mra, got 'sdpa'"),
        (["--lengths", "512,many"], "--lengths takes positive whole numbers, got 'many'"),
        (["--lengths", "64"], "lengths must be at most the new 48 tokens, got 64"),
        (["--drop", "pooler"], "drop names 'pooler', of which nothing has to be left out"),
        (["--lengths", "2"], "must be more than the 2 special tokens"),
        (["--text", "no-such-file"], "can't read --text 'no-such-file'"),
        (["--device", "gpu"], "--device 'gpu' can't be used here"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, mra_convert: Run, tmp_path: Path
) -> None:
    save(make("RobertaModel"), tmp_path / "in")
    assert message in refusal(mra_convert(tmp_path / "in", tmp_path / "out", *arguments))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "out", "message"),
    [
        ("./no-such-folder", "out", "MODEL: there is no folder './no-such-folder'"),
        ("nobody/no-such-model", "out", "can't load 'nobody/no-such-model'"),
        ("in", "no/such/out", "OUT must lie in a folder that exists, got 'no/such/out'"),
        ("in", "in", "OUT 'in' holds MODEL, which it would replace"),
    ],
)
def test_bad_folders(
    model: str,
    out: str,
    message: str,
    mra_convert: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(make("RobertaModel"), tmp_path / "in")
    assert message in refusal(mra_convert(model, out))


def test_a_causal_model(mra_convert: Run, tmp_path: Path) -> None:
    config = tf.GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    save(tf.GPT2Model(config), tmp_path / "in")
    line = refusal(mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", 128))
    assert "GPT2Model" in line
    assert not (tmp_path / "out").exists()


def test_tokenizer_of_another_vocabulary(mra_convert: Run, tmp_path: Path) -> None:
    save(make("BertModel", vocab_size=6), tmp_path / "in")
    line = refusal(mra_convert(tmp_path / "in", tmp_path / "out"))
    assert "the model can't read 48 tokens: index out of range" in line


def test_demo_encoder(mra_convert: Run, tmp_path: Path) -> None:
    """A pretrained encoder, real text, and a new process that loads the result plainly."""
    text = tmp_path / "text"
    text.write_text(topics["class"] + topics["calls"])
    result = mra_convert(
        demo_model(), tmp_path / "out", "--max-length", 1024, "--lengths", 600, "--text", text,
        "--block-per-row", 8,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (row,) = (line.split() for line in result.stdout.splitlines() if line.startswith("   600"))
    assert 0.9 < float(row[1]) < 0.999
    assert "modules     Transformer, Pooling, Normalize (SentenceTransformer)" in result.stdout
    assert "embeddings  with a full budget equal to the old" in result.stdout
    script = (
        "import sys, torch, mra_plugin\n"
        "from transformers import AutoModel, AutoTokenizer\n"
        "model = AutoModel.from_pretrained(sys.argv[1])\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "inputs = tokenizer('word ' * 3000, truncation=True, return_tensors='pt')\n"
        "with torch.inference_mode():\n"
        "    print(model(**inputs).last_hidden_state.shape, model.config._attn_implementation)\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert loaded.stdout.strip() == "torch.Size([1, 1024, 384]) mra", loaded.stderr
