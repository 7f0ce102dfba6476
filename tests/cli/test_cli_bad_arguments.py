import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.letter_models import save_model, save_tokenizer
from transformers import BertForMaskedLM, BertModel, GPT2Config, GPT2Model, ViTConfig, ViTModel
from typer.testing import Result

from mra_plugin.encoders import demo

Mra = Callable[..., Result]


def refusal(result: Result) -> str:
    """The one line that a refused command prints."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths", "0"], "--lengths takes positive whole numbers, got '0'"),
        (["--lengths", "512,-1"], "--lengths takes positive whole numbers, got '-1'"),
        (["--lengths", "512,many"], "--lengths takes positive whole numbers, got 'many'"),
        (["--lengths", "1.5"], "--lengths takes positive whole numbers, got '1.5'"),
        (["--lengths", ""], "--lengths takes positive whole numbers, got ''"),
        (["--block-per-row", "0"], "--block-per-row takes positive whole numbers, got '0'"),
        (["--block-per-row", "x"], "--block-per-row takes positive whole numbers, got 'x'"),
        (["--preset", "near"], "--preset must be paper or close, got 'near'"),
        (["--salient-keys", "-1"], "--salient-keys takes whole numbers from 0, got '-1'"),
        (["--block-score", "max"], "--block-score must be mean or mass, got 'max'"),
        (
            ["--preset", "close", "--selection", "per_row", "--num-blocks", "9"],
            "num_blocks=9 is a budget for the whole matrix",
        ),
        (["--dtype", "int8"], "--dtype must be one of float32, float16, bfloat16, float64"),
        (["--device", "gpu"], "--device 'gpu' can't be used here; available: cpu"),
        (["--device", "cuda:99"], "--device 'cuda:99' can't be used here; available: cpu"),
        (["--device", "meta"], "--device 'meta' can't be used here; available: cpu"),
        (["--attention", "mrs"], "no attention 'mrs' (did you mean 'mra'?)"),
        (["--json", "no/such/folder/f.json"], "--json must name a file in a folder that exists"),
        (["--json", "."], "--json must name a file in a folder that exists"),
        (["--text", "no-such-file"], "can't read --text 'no-such-file': No such file"),
        (["--text", "."], "can't read --text '.': Is a directory"),
        (["--model", "./no-such-folder"], "--model: there is no folder './no-such-folder'"),
        (["--model", __file__], "--model: there is no folder"),
        (["--model", "nobody/no-such-model"], "can't load --model 'nobody/no-such-model'"),
    ],
)
def test_bad_value(mra: Mra, arguments: list[str], message: str) -> None:
    assert message in refusal(mra("compare", *arguments))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b" \n\t", "is empty"), (b"\xff\xfe\x00", "not a text file in UTF-8")],
)
def test_bad_text(mra: Mra, tmp_path: Path, content: bytes, message: str) -> None:
    text = tmp_path / "text"
    text.write_bytes(content)
    assert message in refusal(mra("compare", "--text", text))


def test_text_without_tokens(mra: Mra, tiny_bert: Path, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("\u200b")
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    tokenizer = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(
        tokenizer.replace('"normalizer": null', '"normalizer": {"type": "BertNormalizer", '
        '"clean_text": true, "handle_chinese_chars": true, "strip_accents": null, '
        '"lowercase": true}')
    )  # fmt: skip
    line = refusal(mra("compare", "--model", model, "--text", text))
    assert "tokenizer finds no tokens in the text" in line


def test_lengths_without_room_for_text(mra: Mra, tiny_bert: Path) -> None:
    line = refusal(mra("compare", "--model", tiny_bert, "--lengths", "40,2"))
    assert "must be more than the 2 special tokens" in line


def test_missing_default_model(mra: Mra, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(demo, "import_module", not_there)
    assert 'pip install "mra-plugin[demo]"' in refusal(mra("compare"))


def test_folder_without_a_model(mra: Mra, tmp_path: Path) -> None:
    assert "can't load --model" in refusal(mra("compare", "--model", tmp_path))


def test_damaged_weights(mra: Mra, tiny_bert: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"not weights")
    assert "can't load --model" in refusal(mra("compare", "--model", model))


def test_weights_of_something_else(mra: Mra, tmp_path: Path) -> None:
    model = save_model(BertForMaskedLM, tmp_path / "model", num_hidden_layers=1)
    config = model / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2')
    )
    assert "has no weights for 16 tensors of its encoder" in refusal(
        mra("compare", "--model", model)
    )


def test_causal_model(mra: Mra, tmp_path: Path) -> None:
    GPT2Model(GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    line = refusal(mra("compare", "--model", tmp_path, "--lengths", 16))
    assert "can't use 'mra' in this model" in line


def test_model_that_reads_no_text(mra: Mra, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, intermediate_size=16)).save_pretrained(tmp_path)
    assert "can't load --model" in refusal(mra("compare", "--model", tmp_path))


def test_model_of_pictures_with_a_tokenizer(mra: Mra, tmp_path: Path) -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    ViTModel(config).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    line = refusal(mra("compare", "--model", tmp_path, "--lengths", 8))
    assert "does not read text but pixel_values" in line


def test_tokenizer_of_another_vocabulary(mra: Mra, tmp_path: Path, letters: Path) -> None:
    folder = save_model(BertModel, tmp_path / "model", vocab_size=6)
    line = refusal(mra("compare", "--model", folder, "--text", letters, "--lengths", 8))
    assert "the model can't read 8 tokens" in line
