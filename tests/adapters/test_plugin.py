"""The backend that this package offers to the registry."""

import inspect
from dataclasses import fields

import pytest
import torch

from mra_plugin.ops import MRAOptions, mra_attention, mra_attention_weights
from mra_plugin.registry import available_attention, build_attention, get_attention

OPTIONS = {"block_size": 8, "block_per_row": 2, "selection": "per_row"}


def test_mra_is_offered_by_this_distribution() -> None:
    assert "mra" in [info.name for info in available_attention()]


def test_it_calls_the_operators_with_its_options() -> None:
    query, key, value = torch.randn(3, 2, 2, 40, 4).unbind()
    mask = torch.arange(40)[None] < torch.tensor([[40], [25]])
    attention = build_attention("mra", **OPTIONS)

    assert torch.equal(
        attention(query, key, value, mask, scale=0.3),
        mra_attention(query, key, value, mask, scale=0.3, **OPTIONS),
    )
    assert torch.equal(
        attention.weights(query, key, mask, scale=0.3),
        mra_attention_weights(query, key, mask, scale=0.3, **OPTIONS),
    )
    assert "block_per_row=2" in repr(attention)


def test_its_parameters_are_the_options_a_preset_and_the_implementation() -> None:
    listed = get_attention("mra").parameters
    expected = {field.name: field.default for field in fields(MRAOptions)}
    expected |= {"impl": "auto", "preset": None}
    assert {name: one.default for name, one in listed.items()} == expected
    # The call keeps its own.
    assert "query" in inspect.signature(build_attention("mra")).parameters


def test_what_the_backends_serve() -> None:
    served = {info.name: get_attention(info.name).serves for info in available_attention()}
    assert served["mra"] == {"weights", "budget", "exact_keys"}
    assert served["nystrom"] == served["xformers"] == {"weights"}
    assert served["sdpa"] == {"weights", "bias"}
    assert served["ulysses"] == {"window"}


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"blocks": 8}, TypeError, "blocks.*block_per_row"),
        ({"block_per_row": "8"}, TypeError, "block_per_row"),
        ({"block_size": 12}, ValueError, "block_size"),
        ({"impl": "fast"}, ValueError, "impl"),
    ],
)
def test_wrong_parameters(params: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_attention("mra", **params)
