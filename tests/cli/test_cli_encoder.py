from itertools import chain
from pathlib import Path

import pytest
import torch
from helpers.letter_models import save_model
from torch import Tensor
from transformers import BertModel, ModernBertModel, PreTrainedModel, RobertaModel

import mra_plugin
from mra_plugin.encoders import attentions, loading
from mra_plugin.encoders.positions import extend_positions

CPU = torch.device("cpu")


def roberta(folder: Path) -> PreTrainedModel:
    # Positions 0 and 1 come before the first token's, so 34 rows serve 32 tokens.
    save_model(RobertaModel, folder, max_position_embeddings=34, pad_token_id=1)
    return loading.load_encoder(str(folder), CPU, torch.float32)[0]


@torch.inference_mode()
def read(model: PreTrainedModel, length: int) -> Tensor:
    ids = 5 + torch.arange(length)[None] % 20
    hidden: Tensor = model(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return hidden


def test_tiled_positions_repeat_the_learned_ones(tiny_bert: Path) -> None:
    model, _ = loading.load_encoder(str(tiny_bert), CPU, torch.float32)
    learned = model.embeddings.position_embeddings.weight.clone()
    before = read(model, 48)
    assert extend_positions(model, 100) == 48
    weight = model.embeddings.position_embeddings.weight
    assert torch.equal(weight, torch.cat((learned, learned, learned[:4])))
    assert torch.equal(read(model, 48), before)
    assert read(model, 100).shape == (1, 100, 16)


def test_tiled_positions_of_roberta_spare_the_rows_before_the_first(tmp_path: Path) -> None:
    model = roberta(tmp_path)
    learned = model.embeddings.position_embeddings.weight.clone()
    before = read(model, 32)
    assert extend_positions(model, 40) == 32
    weight = model.embeddings.position_embeddings.weight
    assert torch.equal(weight, torch.cat((learned, learned[2:10])))
    assert torch.equal(read(model, 32), before)
    assert read(model, 40).shape == (1, 40, 16)


def test_enough_positions_are_left_alone(tiny_bert: Path, tmp_path: Path) -> None:
    model, _ = loading.load_encoder(str(tiny_bert), CPU, torch.float32)
    table = model.embeddings.position_embeddings
    assert extend_positions(model, 48) is None
    assert model.embeddings.position_embeddings is table
    assert extend_positions(roberta(tmp_path), 32) is None


def test_rotary_positions_need_no_tiling(tmp_path: Path) -> None:
    save_model(
        ModernBertModel, tmp_path, max_position_embeddings=32, cls_token_id=2, sep_token_id=3,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model, _ = loading.load_encoder(str(tmp_path), CPU, torch.float32)
    assert extend_positions(model, 40) is None
    assert read(model, 40).shape == (1, 40, 16)


def test_copies_share_weights_and_leave_the_model_exact(tiny_bert: Path) -> None:
    model, _ = loading.load_encoder(str(tiny_bert), CPU, torch.float32)
    before = read(model, 48)
    twin, params = attentions.with_attention(model, "mra", {"block_per_row": 1})
    assert params == {"block_per_row": 1}
    tensors = [chain(one.parameters(), one.buffers()) for one in (model, twin)]
    assert all(own is shared for own, shared in zip(*tensors, strict=True))
    assert not torch.allclose(read(twin, 48), before, atol=1e-3)
    assert torch.equal(read(model, 48), before)


def test_model_saved_with_mra_is_loaded_exact(tmp_path: Path) -> None:
    save_model(BertModel, tmp_path)
    exact, _ = loading.load_encoder(str(tmp_path), CPU, torch.float32)
    patched = BertModel.from_pretrained(tmp_path)
    mra_plugin.patch(patched, block_per_row=1).save_pretrained(tmp_path)
    model, _ = loading.load_encoder(str(tmp_path), CPU, torch.float32)
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(read(model, 70), read(exact, 70))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype(tiny_bert: Path, dtype: torch.dtype) -> None:
    model, _ = loading.load_encoder(str(tiny_bert), CPU, dtype)
    extend_positions(model, 60)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
