"""Models ask of an attention what its backend says it serves, and nothing else."""

import pytest
import torch
from helpers.tiny_models import hidden, inputs_of, make, padded
from torch import Tensor

import mra_plugin
from mra_plugin.adapters.transformers.config_attention import attention_with
from mra_plugin.registry import build_attention, register_attention


class Telling:
    """Exact, and tells when one of its other methods is called."""

    def __init__(self) -> None:
        self.exact = build_attention("sdpa")
        self.asked: list[str] = []

    def __call__(self, *inputs: Tensor, **options: float | None) -> Tensor:
        return self.exact(*inputs, **options)

    def weights(self, *inputs: Tensor, **options: float | None) -> Tensor:
        self.asked.append("weights")
        return self.exact.weights(*inputs, **options)

    def local_attention(self, query, key, value, mask, reach, scale) -> Tensor:
        self.asked.append("window")
        return self.exact(query, key, value, mask, scale=scale)


register_attention("serves-test-nothing")(Telling)
register_attention("serves-test-weights", serves={"weights"})(Telling)
register_attention("serves-test-window", serves={"window"})(Telling)


def asked(attention: str) -> list[str]:
    """Of the attention that models share."""
    return attention_with(attention, {}).attend.asked


def test_weights() -> None:
    model = make("bert")
    mra_plugin.patch(model, attention="serves-test-weights")
    matrices = model(**inputs_of("bert", padded()), output_attentions=True).attentions
    assert [x.shape for x in matrices] == 2 * [(2, 2, 70, 70)]
    assert asked("serves-test-weights") == 2 * ["weights"]

    mra_plugin.patch(model, attention="serves-test-nothing")
    with pytest.raises(ValueError, match=r"output_attentions=True.*Telling does not give"):
        model(**inputs_of("bert", padded()), output_attentions=True)
    assert asked("serves-test-nothing") == []


def test_windows() -> None:
    model = make("modernbert", layer_types=["sliding_attention"] * 2)
    inputs = inputs_of("modernbert", padded())
    local = hidden(mra_plugin.patch(model, attention="serves-test-nothing"), **inputs)
    assert asked("serves-test-nothing") == []
    mra_plugin.patch(model, attention="serves-test-window")
    assert not torch.allclose(hidden(model, **inputs), local, atol=1e-3)
    assert asked("serves-test-window") == 2 * ["window"]


def test_what_is_built_is_shared_and_names_its_backend() -> None:
    one = attention_with("mra", {"block_per_row": 2})
    assert attention_with("mra", {"block_per_row": 2}) is one
    assert attention_with("mra", {"block_per_row": 3}) is not one
    assert one.name == "mra"
    assert one.serves == {"weights", "budget", "exact_keys"}
