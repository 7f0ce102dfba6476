"""The attentions under comparison: the registry's, and flex_attention over the blocks of MRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from cases import CannotRunError, Direction, first_sentence
from flex_blocks import flex_attention_on_mra_blocks
from torch import Tensor, nn

from mra_plugin.registry import AttentionError, available_attention, build_attention, get_attention

REFERENCE = "sdpa"
FLEX = "flex_attention"

# Backends that come in more than one way. All others run with their defaults.
_WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "mra": {
        "mra": {},
        "mra sparse": {"approx_mode": "sparse"},
        "mra per_row": {"selection": "per_row"},
        "mra sparse per_row": {"approx_mode": "sparse", "selection": "per_row"},
    }
}


@dataclass(frozen=True)
class Method:
    """A way to compute attention.

    Attributes:
        label: what results call it.
        backend: name in the registry; None for what is not in it.
        params: parameters of the backend, without the budget.
        reason: why the registry can't offer it here; empty if it can.
    """

    label: str
    backend: str | None
    params: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def all_params(self, tokens: int) -> dict[str, Any]:
        """The parameters at a length, with the budget of those that have one."""
        if self.backend is None:
            return {"block_size": 32, "block_per_row": block_per_row(tokens)}
        if self.reason or "budget" not in get_attention(self.backend).serves:
            return dict(self.params)
        return {"block_per_row": block_per_row(tokens), **self.params}


def block_per_row(tokens: int) -> int:
    """The budget of MRA attention at a length."""
    return 4 if tokens <= 1024 else 8


def methods() -> list[Method]:
    """Every method, the reference first."""
    found = [
        Method(label, info.name, params, "" if info.status == "ok" else info.reason)
        for info in available_attention()
        for label, params in _WAYS.get(info.name, {info.name: {}}).items()
    ]
    found.append(Method(FLEX, None))
    return sorted(found, key=lambda method: method.label != REFERENCE)


def attend_with(
    method: Method, inputs: tuple[Tensor, Tensor, Tensor], direction: Direction
) -> Callable[..., Tensor]:
    """The attention, tried out with these inputs.

    Args:
        method: one of `methods`.
        inputs: query, key and value, [B, H, N, D] each.
        direction: with or without gradients.

    Raises:
        CannotRunError: it can't run here, or not with these inputs.
    """
    if method.reason:
        raise CannotRunError(method.reason)
    params = method.all_params(inputs[0].shape[2])
    if method.backend is None:
        attention: Callable[..., Tensor] = flex_attention_on_mra_blocks(*inputs, **params)
    else:
        attention = _from_registry(method.backend, params, inputs)
    try:
        attend(attention, inputs, direction, torch.ones_like(inputs[2]))
    except Exception as error:  # whatever a compiler or a stranger's backend may say
        raise CannotRunError(first_sentence(error)) from None
    return attention


def attend(
    attention: Callable[..., Tensor],
    inputs: tuple[Tensor, Tensor, Tensor],
    direction: Direction,
    cotangent: Tensor,
) -> Tensor:
    """Attends once; for training, also computes the gradients of all inputs.

    Args:
        attention: takes query, key and value.
        inputs: [B, H, N, D] each.
        direction: with or without gradients.
        cotangent: gradient of the output, [B, H, N, D].
    """
    with torch.set_grad_enabled(direction == "training"):
        out = attention(*inputs)
        if direction == "training":
            # A backend may take no notice of an input.
            torch.autograd.grad(out, inputs, cotangent, allow_unused=True)
    return out.detach()


def _from_registry(
    name: str, params: dict[str, Any], inputs: tuple[Tensor, Tensor, Tensor]
) -> Callable[..., Tensor]:
    reason = get_attention(name).why_unsupported(*inputs)
    if reason:
        raise CannotRunError(reason)
    try:
        attention = build_attention(name, **params)
    except AttentionError as error:
        raise CannotRunError(first_sentence(error)) from None
    if isinstance(attention, nn.Module):
        attention.to(inputs[0].device, inputs[0].dtype)
    return attention
