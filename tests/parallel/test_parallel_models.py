"""Whole encoders on shards of a sequence, beside one process with the whole of it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers.sharded_models import ATTENTION, HOW, MAKE, SIZES, alone, batch, make, together
from helpers.worlds import World

import mra_plugin
from mra_plugin.parallel import gather_sequence, shard_inputs, shard_parameters
from mra_plugin.parallel.shards import MODEL_TYPES

Worlds = Callable[[int], World]


def compare(world: World, family: str, masked: bool, how: str) -> None:
    hidden, gradients = alone(family, masked)
    for found, found_gradients in world.run(together, family, masked, how):
        np.testing.assert_allclose(found, hidden, rtol=0, atol=1e-11)
        assert found_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            np.testing.assert_allclose(
                found_gradients[name], gradient, rtol=0, atol=1e-11, err_msg=name
            )


def test_every_kind_of_model_is_tested() -> None:
    assert set(MAKE) == set(MODEL_TYPES)


@pytest.mark.parametrize("family", sorted(MAKE))
def test_hidden_states_and_gradients_are_those_of_one_process(world: Worlds, family: str) -> None:
    compare(world(4), family, masked=True, how="plain")


@pytest.mark.parametrize("how", HOW)
def test_without_padding_in_two_processes(world: Worlds, how: str) -> None:
    compare(world(2), "roberta", masked=False, how=how)
    compare(world(2), "bert", masked=True, how=how)


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ("unpatched", ValueError, "its attention is 'sdpa'.*attention='ulysses'"),
        ("another attention", ValueError, "its attention is 'mra'"),
        ("nystromformer", ValueError, "'nystromformer' can't run on shards.*roberta"),
        ("too long", ValueError, "at most 70 tokens.*got 71"),
        ("labels", ValueError, r"labels must have the shape of input_ids, \[2, 70\], got \[2\]"),
        ("no model", TypeError, "Linear"),
        ("one row", ValueError, r"\[batch, tokens\], got shape \[70\]"),
    ],
)
def test_what_cannot_be_sharded(
    case: str, error: type[Exception], message: str, lone_world: None
) -> None:
    import transformers as tf

    model = make("roberta")
    inputs = batch("roberta", masked=False)
    if case == "nystromformer":
        model = tf.NystromformerModel(tf.NystromformerConfig(**SIZES))
    if case == "another attention":
        mra_plugin.patch(model)
    elif case != "unpatched":
        mra_plugin.patch(model, attention="ulysses", inner="sdpa")
    if case == "too long":
        inputs = {"input_ids": torch.full((1, 71), 5)}
    if case == "labels":
        inputs["labels"] = torch.zeros(2, dtype=torch.long)
    if case == "no model":
        model = torch.nn.Linear(2, 2)
    if case == "one row":
        inputs = {"input_ids": inputs["input_ids"][0]}
    with pytest.raises(error, match=message):
        shard_inputs(model, **inputs)


def test_one_process_has_the_whole_sequence(lone_world: None) -> None:
    model = mra_plugin.patch(make("roberta"), attention="ulysses", **ATTENTION)
    inputs = batch("roberta", masked=True)
    shard = shard_inputs(model, **inputs, labels=inputs["input_ids"])
    assert shard.keys() == {"input_ids", "attention_mask", "position_ids", "labels"}
    found = gather_sequence(model(**shard | {"labels": None}).last_hidden_state, 70)
    expected, _ = alone("roberta", masked=True)
    np.testing.assert_allclose(
        found[inputs["attention_mask"].bool()].detach().numpy(), expected, rtol=0, atol=1e-12
    )
    with pytest.raises(ValueError, match=r"from 0 to 70.*got 71"):
        gather_sequence(found, 71)
    with pytest.raises(ValueError, match=r"batch, tokens"):
        gather_sequence(found[0, 0])


def test_parameters_need_a_process_group() -> None:
    with pytest.raises(RuntimeError, match="torchrun"):
        shard_parameters(make("roberta"))


def test_a_patched_model_is_saved_with_its_choice(tmp_path: object) -> None:
    model = mra_plugin.patch(make("roberta"), attention="ulysses", inner="mra", block_size=8)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.config.efficient_attention == {"name": "ulysses", "inner": "mra", "block_size": 8}
    with pytest.raises(RuntimeError, match="torchrun"):
        loaded(torch.full((1, 8), 5))
