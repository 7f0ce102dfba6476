"""Every field of a MEGA config does what it says, or is refused when the config is made."""

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers import own_families
from helpers.tiny_mega import DECODER, HEADS, config, hidden, make, token_ids
from huggingface_hub.errors import StrictDataclassFieldValidationError
from safetensors.torch import load_file, save_file

import mra_plugin

REFUSED = [
    ({"is_decoder": True}, r"is_decoder=True needs bidirectional=False"),
    ({"add_cross_attention": True}, "add_cross_attention=True needs is_decoder=True"),
    ({"use_chunking": True}, "use_chunking needs a chunk_size of at least 1, got -1"),
    (
        {"use_chunking": True, "chunk_size": 97, "relative_positional_bias": "simple"},
        r"chunk_size must be at most max_positions \(96\).*got 97",
    ),
    ({"shared_representation_size": 15}, "must be even for relative_positional_bias='rotary'"),
    ({"truncation": 0}, "truncation must be None or at least 1, got 0"),
    ({"normalization_type": "groupnorm"}, "normalization_type must be one of .*'groupnorm'"),
    ({"attention_activation": "gelu"}, "attention_activation must be one of .*'gelu'"),
    ({"relative_positional_bias": "alibi"}, "relative_positional_bias must be one of .*'alibi'"),
    ({"activation": "sinus"}, "activation must name an activation of transformers.*'sinus'"),
    ({"num_attention_heads": 2}, "num_attention_heads must be 1"),
    ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
    ({"ema_projection_size": 0}, "ema_projection_size must be at least 1, got 0"),
    ({"dropout_prob": 1.5}, "dropout_prob must lie between 0 and 1, got 1.5"),
    ({"classifier_dropout": -1.0}, "classifier_dropout must lie between 0 and 1"),
    ({"ema_beta_range": -0.1}, "ema_beta_range must be at least 0"),
    ({"pad_token_id": 64}, r"pad_token_id must be None or a row .*vocab_size=64.*got 64"),
    ({"problem_type": "ranking"}, "problem_type must be None or one of"),
    ({"chunk_size_feed_forward": 8}, "chunk_size_feed_forward must be 0"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_what_is_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config(**fields)


@pytest.mark.parametrize("field", ["hidden_size", "use_chunking", "activation", "truncation"])
def test_types_are_checked(field: str) -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match=field):
        config(**{field: [1]})


def test_odd_sizes_are_served() -> None:
    assert hidden(make(hidden_size=15), token_ids()).shape == (2, 40, 15)
    odd = make(shared_representation_size=15, relative_positional_bias="simple")
    assert hidden(odd, token_ids()).isfinite().all()


def test_the_defaults_are_those_of_transformers_4() -> None:
    fields = mra_plugin.MegaConfig().to_dict()
    expected = {
        "vocab_size": 30522,
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 256,
        "ema_projection_size": 16,
        "bidirectional": True,
        "shared_representation_size": 64,
        "use_chunking": False,
        "chunk_size": -1,
        "truncation": None,
        "normalization_type": "scalenorm",
        "norm_affine": True,
        "activation": "silu",
        "attention_activation": "softmax",
        "dropout_prob": 0.1,
        "nffn_hidden_size": 256,
        "max_positions": 2048,
        "add_token_type_embeddings": False,
        "ema_delta_alpha_range": 0.2,
        "ema_beta_range": 0.02,
        "ema_gamma_omega_range": 1.0,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "model_type": "mega",
        "relative_positional_bias": "rotary",
        "add_lm_hidden_dense_layer": True,
    }
    assert {name: fields[name] for name in expected} == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"activation": "gelu"},
        {"truncation": 3},
        {"normalize_before_mega": False},
        {"normalize_before_ffn": False},
        {"normalization_type": "layernorm"},
        {"attention_activation": "relu2"},
        {"relative_positional_bias": "simple"},
        {"use_chunking": True, "chunk_size": 16},
        {"bidirectional": False},
        {"bidirectional": False, "is_decoder": True},
    ],
    ids=str,
)
def test_fields_that_change_what_is_computed(fields: dict[str, object]) -> None:
    assert not torch.allclose(hidden(make(**fields), token_ids()), hidden(make(), token_ids()))


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_dropout_of_classifiers(head: str) -> None:
    def dropout(family: str, given: float | None) -> float:
        fields = {"hidden_dropout_prob": 0.3, "classifier_dropout": given}
        model = own_families.make(f"{family}For{head}", **fields)
        return getattr(model.classifier, "dropout", getattr(model, "dropout", None)).p

    assert dropout("Mega", None) == 0.3
    assert dropout("Mega", 0.0) == 0.0
    # Of these it is no field.
    assert dropout("Mra", 0.2) == dropout("Nystromformer", 0.2) == 0.3


def test_one_state_dict_goes_both_ways(tmp_path: Path) -> None:
    """Names of transformers 4, with the buffer that holds nothing, and without a tied weight."""
    model = make("MegaForMaskedLM")
    state = model.state_dict()
    buffers = [f"mega.layers.{i}.mega_layer.rel_pos_bias._float_tensor" for i in range(2)]
    assert all(state[name].shape == (1,) for name in buffers)
    assert {"dense.weight", "mlm_head.weight", "mlm_head.bias"} <= set(state)
    make("MegaForMaskedLM").load_state_dict(state, strict=True)

    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert set(stored) == set(state) - {"mlm_head.weight"}
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        "MegaForMaskedLM"
    ]
    # Saved before a buffer was there, or by the authors' own code.
    save_file({k: v for k, v in stored.items() if k not in buffers}, tmp_path / "model.safetensors")
    loaded = tf.AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert type(loaded) is mra_plugin.MegaForMaskedLM
    assert all(loaded.state_dict()[name].eq(0).all() for name in buffers)
    ids = token_ids()
    torch.testing.assert_close(loaded.eval()(ids).logits, model(ids).logits)


def test_a_head_of_its_own_is_not_lost(tmp_path: Path) -> None:
    """Two tensors in a checkpoint stay two, whatever a config says of tying."""
    model = make("MegaForMaskedLM", tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "tie_word_embeddings": True}))
    loaded = mra_plugin.MegaForMaskedLM.from_pretrained(tmp_path).eval()
    ids = token_ids()
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


def test_encoders_and_heads_share_checkpoints(tmp_path: Path) -> None:
    model = make("MegaForMaskedLM")
    model.save_pretrained(tmp_path)
    encoder = tf.AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    ids = token_ids()
    torch.testing.assert_close(hidden(encoder, ids), hidden(model.mega, ids))
    encoder.save_pretrained(tmp_path)
    for head in HEADS:
        if head != "MegaForCausalLM":
            loaded = getattr(mra_plugin, head).from_pretrained(tmp_path).eval()
            torch.testing.assert_close(hidden(loaded.base_model, ids), hidden(encoder, ids))
    with pytest.raises(ValueError, match="MegaForCausalLM needs"):
        tf.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_auto_classes_make_decoders() -> None:
    made = tf.AutoModelForCausalLM.from_config(config(**DECODER))
    assert type(made) is mra_plugin.MegaForCausalLM
    assert made.can_generate()
