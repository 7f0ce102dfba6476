"""Every family with learned positions, and those with rotary ones, made longer."""

from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers import tiny_models
from helpers.convert_models import LEARNED_POSITIONS, ROTARY, make, read, save

import mra_plugin
from mra_plugin.convert import stretch
from mra_plugin.encoders.exact import make_exact
from mra_plugin.encoders.positions import position_tables
from mra_plugin.errors import UserError

LONG = 400
FAMILIES = pytest.mark.parametrize("family", LEARNED_POSITIONS)
FULL = {"block_size": 16, "block_per_row": 25}


def tokens_of(model: tf.PreTrainedModel) -> int:
    return position_tables(model)[0].positions


@FAMILIES
def test_stretched_saved_and_loaded(family: str, tmp_path: Path) -> None:
    model = LEARNED_POSITIONS[family]()
    learned = tokens_of(model)
    expected = read(make_exact(model), learned)
    mra_plugin.patch(mra_plugin.unpatch(stretch(model, None, LONG)), **FULL)
    save(model, tmp_path)

    loaded = type(model).from_pretrained(tmp_path).eval()
    assert tokens_of(loaded) == LONG
    assert loaded.config.mra == FULL
    assert loaded.config._attn_implementation == "mra"
    torch.testing.assert_close(read(loaded, learned), expected, atol=2e-5, rtol=2e-5)
    assert torch.equal(read(loaded, LONG), read(model, LONG))
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        read(loaded, LONG + 1)


@FAMILIES
def test_repeated_positions_mean_the_same_as_the_first(family: str) -> None:
    model = LEARNED_POSITIONS[family]()
    (before,) = position_tables(model)
    stretch(model, None, LONG)
    (after,) = position_tables(model)
    assert torch.equal(
        after.table.weight[: before.reserved], before.table.weight[: before.reserved]
    )
    rows = torch.arange(LONG) % before.positions
    assert torch.equal(after.learned, before.learned[rows])
    assert after.table.weight.requires_grad


@FAMILIES
def test_interpolated_positions_lie_between_the_learned_ones(family: str) -> None:
    model = LEARNED_POSITIONS[family]()
    (before,) = position_tables(model)
    # Every third new position is a learned one.
    length = 3 * (before.positions - 1) + 1
    stretch(model, None, length, "interpolate")
    (after,) = position_tables(model)
    assert torch.equal(
        after.table.weight[: before.reserved], before.table.weight[: before.reserved]
    )
    assert torch.equal(after.learned[::3], before.learned)
    between = (2 * before.learned[:-1] + before.learned[1:]) / 3
    torch.testing.assert_close(after.learned[1::3], between, atol=1e-5, rtol=1e-5)
    assert read(make_exact(model), length).isfinite().all()


@pytest.mark.parametrize("family", ROTARY)
def test_of_rotary_positions_the_limits_change_alone(family: str) -> None:
    model = ROTARY[family]()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    expected = read(model, LONG)
    stretch(model, None, LONG)
    assert model.config.max_position_embeddings == LONG
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert torch.equal(read(model, LONG), expected)


@pytest.mark.parametrize("positions", ["tile", "interpolate"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_data_type_stays(dtype: torch.dtype, positions: str) -> None:
    model = make("RobertaModel").to(dtype)
    stretch(model, None, 60, positions)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_frozen_positions_stay_frozen() -> None:
    model = make("BertModel").requires_grad_(False)
    stretch(model, None, 60)
    assert not position_tables(model)[0].table.weight.requires_grad


def test_the_tokenizer_gets_the_limit_too(tmp_path: Path) -> None:
    save(make("BertModel"), tmp_path)
    tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path, model_max_length=48)
    tokenizer.backend_tokenizer.enable_truncation(16)
    tokenizer.backend_tokenizer.enable_padding(length=16)
    stretch(make("BertModel"), tokenizer, 60)
    tokenizer.save_pretrained(tmp_path)
    loaded = tf.AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 60
    assert loaded.backend_tokenizer.truncation is None
    assert loaded.backend_tokenizer.padding is None
    assert len(loaded("a " * 100, truncation=True)["input_ids"]) == 60


def test_the_model_may_keep_its_length() -> None:
    model = make("BertModel")
    table = model.embeddings.position_embeddings
    stretch(model, None, 48)
    assert model.embeddings.position_embeddings is table


def of_relative_positions() -> tf.PreTrainedModel:
    config = mra_plugin.MraConfig(
        vocab_size=8, hidden_size=64, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=32, position_embedding_type="relative_key",
    )  # fmt: skip
    return mra_plugin.MraModel(config)


def of_yarn() -> tf.PreTrainedModel:
    scaled = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0}
    scaled["original_max_position_embeddings"] = 80
    return tiny_models.make("eurobert", rope_parameters=scaled)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (lambda: make("BertModel"), (47,), "at least the 48 tokens that the model reads already"),
        (lambda: make("RobertaModel"), (47,), "at least the 48 tokens"),
        (ROTARY["eurobert"], (159,), "at least the 160 tokens"),
        (lambda: make("BertModel"), (64, "repeat"), "positions must be one of tile, interpolate"),
        (of_relative_positions, (64,), "positions .position_embedding_type='relative_key'"),
        (of_yarn, (320,), "rotary positions of type 'yarn'"),
        (
            lambda: tf.SiglipTextModel(
                tf.SiglipTextConfig(
                    vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                    intermediate_size=8, bos_token_id=0, eos_token_id=1,
                )
            ),
            (128,),
            "neither a learned position table .position_embeddings. nor rotary positions",
        ),
    ],
)  # fmt: skip
def test_refused(model: object, arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stretch(model(), None, *arguments)
