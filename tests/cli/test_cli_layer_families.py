"""`mra compare` with checkpoints of MRA and Nyströmformer, whose own attention approximates."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers.letter_models import save_model
from torch import Tensor
from typer.testing import Result

import mra_plugin
from mra_plugin.encoders import attentions, loading
from mra_plugin.encoders.positions import extend_positions, fit_budget

CPU = torch.device("cpu")
CLASSES = {"mra": tf.MraModel, "nystromformer": tf.NystromformerModel}
FAMILIES = pytest.mark.parametrize("family", CLASSES)


def saved(family: str, folder: Path, **config: object) -> tf.PreTrainedModel:
    save_model(
        CLASSES[family], folder, max_position_embeddings=96, hidden_size=64,
        bos_token_id=2, eos_token_id=3, **config,
    )  # fmt: skip
    return CLASSES[family].from_pretrained(folder).eval()


@torch.inference_mode()
def read(model: tf.PreTrainedModel, length: int) -> Tensor:
    hidden: Tensor = model(5 + torch.arange(length)[None] % 20).last_hidden_state
    return hidden


@FAMILIES
@pytest.mark.parametrize("patched", [False, True])
def test_loaded_exact(family: str, patched: bool, tmp_path: Path) -> None:
    model = saved(family, tmp_path)
    if patched:
        mra_plugin.patch(model, block_per_row=1).save_pretrained(tmp_path)
    loaded, _ = loading.load_encoder(str(tmp_path), CPU, torch.float32)
    mra_plugin.patch(model, attention="sdpa")
    torch.testing.assert_close(read(loaded, 96), read(model, 96))
    assert attentions.exact_attention(loaded) == ("sdpa", False)


@FAMILIES
def test_tiled_positions_spare_the_rows_before_the_first(family: str, tmp_path: Path) -> None:
    saved(family, tmp_path)
    model, _ = loading.load_encoder(str(tmp_path), CPU, torch.float32)
    learned = model.embeddings.position_embeddings.weight.clone()
    before = read(model, 96)
    assert extend_positions(model, 96) is None
    assert extend_positions(model, 200) == 96
    weight = model.embeddings.position_embeddings.weight
    assert torch.equal(weight, torch.cat((learned, learned[2:], learned[2:10])))
    assert model.config.max_position_embeddings == 200
    assert torch.equal(read(model, 96), before)
    assert read(model, 200).shape == (1, 200, 64)


@FAMILIES
def test_compare(mra: Callable[..., Result], family: str, letters: Path, tmp_path: Path) -> None:
    saved(family, tmp_path)
    figures = tmp_path / "figures.json"
    result = mra(
        "compare", "--model", tmp_path, "--text", letters, "--lengths", "96,256",
        "--attention", "mra", "--attention", "nystrom", "--attention", "sdpa",
        "--block-per-row", 1, "--json", figures, "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = "exact: the model with sdpa in place of its own attention, which approximates"
    assert expected in result.stdout
    assert "the model's 96 position embeddings are repeated up to 256" in result.stdout
    found = json.loads(figures.read_text())
    assert found["exact"] == "sdpa"
    assert found["attention"] == {"mra": {"block_per_row": 1}, "nystrom": {}, "sdpa": {}}
    for row in found["results"]:
        if row["attention"] == "sdpa":
            assert row["token_cosine"] == pytest.approx(1, abs=1e-6)
        else:
            assert 0.3 < row["token_cosine"] < 0.99999


def test_the_budget_of_an_mra_model_is_that_of_the_length(tmp_path: Path) -> None:
    model = saved("mra", tmp_path)
    own = read(mra_plugin.patch(model, block_per_row=1), 96)
    exact, _ = loading.load_encoder(str(tmp_path), CPU, torch.float32)
    learned = extend_positions(exact, 1024)
    twin, _ = attentions.with_attention(exact, "mra", {"block_per_row": 1})
    assert not torch.allclose(read(twin, 96), own, atol=1e-3)
    fit_budget(twin, learned, 96)
    torch.testing.assert_close(read(twin, 96), own)
    fit_budget(twin, learned, 320)
    assert twin.config.max_position_embeddings == 320


def test_relative_positions_have_no_exact_attention(
    mra: Callable[..., Result], letters: Path, tmp_path: Path
) -> None:
    save_model(
        mra_plugin.MraModel, tmp_path, max_position_embeddings=96,
        position_embedding_type="relative_key",
    )  # fmt: skip
    result = mra("compare", "--model", tmp_path, "--text", letters, "--lengths", 96)
    assert result.exit_code == 2
    assert "position_embedding_type='relative_key'" in result.output
