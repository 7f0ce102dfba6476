"""MEGA models as whole graphs, compiled and exported."""

import pytest
import torch
from helpers.tiny_mega import DECODER, HEADS, inputs_of, labels_of, make
from torch import Tensor, nn

# The others differ in their heads, and a decoder in its mask.
ALL = [pytest.param(head, marks=() if head == "MegaModel" else pytest.mark.slow) for head in HEADS]


def whole_inputs(head: str) -> dict[str, object]:
    return {**inputs_of(head), **({"use_cache": False} if head == "MegaForCausalLM" else {})}


@torch.no_grad()
def run(model: nn.Module, head: str) -> list[Tensor]:
    return list(model(**whole_inputs(head), **labels_of(head)).values())


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ALL)
def test_compiled(head: str) -> None:
    torch._dynamo.reset()
    model = make(head)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(run(compiled, head), run(model, head))


@pytest.mark.slow
@pytest.mark.parametrize("function", ["softmax", "laplace", "relu2"])
@pytest.mark.parametrize("extra", [{}, DECODER, {"truncation": 5}], ids=str)
@pytest.mark.parametrize("bias", ["rotary", "simple"])
def test_all_kinds_compiled_and_trained(function: str, extra: dict, bias: str) -> None:
    torch._dynamo.reset()
    chunks = {"use_chunking": True, "chunk_size": 16}
    fields = {"attention_activation": function, "relative_positional_bias": bias}
    names = ("dropout", "hidden_dropout", "attention_probs_dropout", "nffn_activation_dropout")
    still = {f"{name}_prob": 0.0 for name in names}
    model = make(**chunks, **fields, **extra, **still, use_cache=False).train()
    gradients = []
    for called in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        called(**inputs_of("MegaModel")).last_hidden_state.square().mean().backward()
        found = {name: x.grad for name, x in model.named_parameters() if x.grad is not None}
        gradients.append(found)
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("head", ALL)
def test_exported(head: str) -> None:
    model = make(head)
    exported = torch.export.export(model, (), whole_inputs(head), strict=False)
    with torch.no_grad():
        found = list(exported.module()(**whole_inputs(head)).values())
        assert_same(found, list(model(**whole_inputs(head)).values()))
