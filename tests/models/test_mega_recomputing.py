"""What a layer computes again in its backward: the same gradients, from less that was kept."""

from collections.abc import Callable

import pytest
import torch
from helpers.tiny_mega import DECODER, make, padded
from torch import Tensor, nn

from mra_plugin.encoders.measure import memory_changes
from mra_plugin.models.mega import gated_attention, layer_parts

VARIANTS = {
    "encoder": {},
    "decoder": {**DECODER, "use_chunking": True, "chunk_size": 16, "truncation": 5},
    "post-norm": {"normalize_before_mega": False, "normalize_before_ffn": False},
    "laplace": {"attention_activation": "laplace", "relative_positional_bias": "simple"},
    "features": {"use_feature_dropout": True, "normalization_type": "batchnorm"},
}


def keep_everything(patching: pytest.MonkeyPatch) -> None:
    for module in (gated_attention, layer_parts):
        patching.setattr(module, "recomputed", lambda step, *inputs: step(*inputs))


def gradients(model: nn.Module, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    """With dropout, which has to drop the same again."""
    torch.manual_seed(3)
    x = x.clone().requires_grad_()
    out = model(inputs_embeds=x, attention_mask=mask)
    (out.last_hidden_state.square().sum() + out.pooler_output.sum()).backward()
    return [x.grad, *(one.grad for one in model.parameters() if one.grad is not None)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("mask", [None, padded(2, 40, 25)], ids=["all", "padded"])
def test_gradients_are_those_of_keeping_everything(
    variant: str, mask: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 40, 32, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    models = [make(**VARIANTS[variant]).double().train() for _ in range(2)]
    found = gradients(models[0], x, mask)
    keep_everything(monkeypatch)
    expected = gradients(models[1], x, mask)
    assert len(found) == len(expected) > 20
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    # Nothing is counted twice.
    for one, other in zip(models[0].buffers(), models[1].buffers(), strict=True):
        torch.testing.assert_close(one, other)


def held_bytes(run: Callable[[], Tensor]) -> int:
    """What a forward pass leaves in memory, its result included."""
    out, changes = memory_changes(run)
    assert out.requires_grad
    return sum(changes)


def test_less_than_half_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make(hidden_size=64, intermediate_size=128, nffn_hidden_size=64).layers[0]
    x = torch.randn(1, 512, 64).requires_grad_()
    found = held_bytes(lambda: layer(x)[0])
    keep_everything(monkeypatch)
    assert found < 0.5 * held_bytes(lambda: layer(x)[0])
