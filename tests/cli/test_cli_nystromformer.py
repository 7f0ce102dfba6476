"""The commands on a checkpoint of Nyströmformer: all serve it, or say why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers as tf
from helpers.letter_models import save_model
from typer.testing import CliRunner, Result

import mra_plugin
from mra_plugin.cli import app

FIELDS = {
    "max_position_embeddings": 96,
    "segment_means_seq_len": 96,
    "num_landmarks": 8,
    "conv_kernel_size": 5,
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = save_model(mra_plugin.NystromformerForMaskedLM, tmp_path / "in", **FIELDS)
    tokenizer = tf.AutoTokenizer.from_pretrained(folder, mask_token="z")
    tokenizer.save_pretrained(folder)
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_converted_with_its_own_attention_and_distilled(
    checkpoint: Path, letters: Path, tmp_path: Path
) -> None:
    long = tmp_path / "long"
    output = run("convert", checkpoint, long, "--max-length", 200, "--attention", "nystrom")
    assert "200, from 96; learned positions, repeated" in output
    assert "attention  nystrom" in output
    model = tf.AutoModelForMaskedLM.from_pretrained(long)
    assert type(model) is mra_plugin.NystromformerForMaskedLM
    assert model.config.efficient_attention == {"name": "nystrom"}

    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(8):  # texts that differ, so that some are held out
        (texts / f"{number}.txt").write_text(letters.read_text()[2 * number :] * 3)
    few = ("--data", texts, "--steps", 2, "--length", 120, "--eval-share", 0.4)
    run("train", long, tmp_path / "near", "--distill", "self", *few)
    near = tf.AutoModelForMaskedLM.from_pretrained(tmp_path / "near")
    assert near.config.efficient_attention == {"name": "nystrom"}
    run("train", checkpoint, tmp_path / "words", *few[:4], "--length", 48)
    assert type(tf.AutoModelForMaskedLM.from_pretrained(tmp_path / "words")) is type(near)


def test_compared_and_drawn(checkpoint: Path, letters: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = ("compare", "--model", checkpoint, "--text", letters, "--lengths", "90")
    output = run(*command, "--attention", "nystrom", "--json", figures, "--device", "cpu")
    assert "exact: the model with sdpa in place of its own attention" in output
    assert 0.3 < json.loads(figures.read_text())["results"][0]["token_cosine"] < 0.99999
    picture = tmp_path / "head.png"
    run("plot", "--model", checkpoint, "--text", letters, "--length", 64, "--save", picture)
    assert picture.stat().st_size > 1000


def test_it_does_not_become_an_mra_model(mra: Callable[..., Result], checkpoint: Path) -> None:
    result = mra("convert", checkpoint, checkpoint.parent / "out", "--to", "mra")
    assert result.exit_code == 2
    assert "can't become an MRA model; bert" in " ".join(result.output.split())
