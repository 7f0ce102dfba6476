"""All kinds of MEGA models as whole graphs, trained."""

import pytest
import torch
from helpers.tiny_mega import DECODER, STILL, inputs_of, make


@pytest.mark.slow
@pytest.mark.parametrize("function", ["softmax", "laplace", "relu2"])
@pytest.mark.parametrize("extra", [{}, DECODER, {"truncation": 5}], ids=str)
@pytest.mark.parametrize("bias", ["rotary", "simple"])
def test_all_kinds_compiled_and_trained(function: str, extra: dict, bias: str) -> None:
    torch._dynamo.reset()
    chunks = {"use_chunking": True, "chunk_size": 16}
    fields = {"attention_activation": function, "relative_positional_bias": bias}
    model = make(**chunks, **fields, **extra, **STILL, use_cache=False).train()
    gradients = []
    for called in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        called(**inputs_of("MegaModel")).last_hidden_state.square().mean().backward()
        found = {name: x.grad for name, x in model.named_parameters() if x.grad is not None}
        gradients.append(found)
    for name, one in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], one, atol=1e-4, rtol=1e-3, msg=name)
