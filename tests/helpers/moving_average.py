"""Calls of the moving average, and how an implementation is held against the recurrence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mra_plugin.ops import damped_ema

from .attention_calls import relative_error

# Decays at both ends of their range stand in the first row.
EXTREMES = (0.0, 1.0, 1e-6, 1 - 1e-6)


def random_call(
    length: int,
    *,
    batch: int = 2,
    channels: int = 5,
    averages: int = 4,
    bidirectional: bool = False,
    state: bool = False,
    mask: bool = False,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments of `damped_ema`; parameters are float64, or else float32, as models give them."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    rows = channels * (2 if bidirectional else 1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    decays = random(rows, averages).mul(3).sigmoid()
    extremes = torch.tensor(EXTREMES, dtype=torch.float64)[:averages]
    decays[0, : len(extremes)] = extremes
    call: dict[str, Any] = {
        "x": random(batch, length, channels).to(dtype),
        "p": random(rows, averages).to(wide),
        "q": decays.to(wide),
        "gamma": random(rows, averages).to(wide),
        "bidirectional": bidirectional,
    }
    if state:
        call["state"] = random(batch, channels, averages).to(wide)
    if mask:
        call["mask"] = torch.rand(batch, length, generator=generator) < 0.7
    return call


def run(call: dict[str, Any], **options: Any) -> dict[str, Tensor]:
    """Output, state and gradients of all inputs, for fixed random cotangents."""
    call = {**call, **options}
    leaves = {
        name: one.detach().clone().requires_grad_()
        for name, one in call.items()
        if isinstance(one, Tensor) and one.is_floating_point()
    }
    result = damped_ema(**{**call, **leaves})
    results = result if isinstance(result, tuple) else (result,)
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=torch.float64)
    for one in results:
        weight = torch.randn(one.shape, dtype=torch.float64, generator=generator)
        loss = loss + (one.double() * weight).sum()
    gradients = torch.autograd.grad(
        loss, list(leaves.values()), materialize_grads=True, allow_unused=True
    )
    named = dict(zip(("y", "after"), (one.detach() for one in results), strict=False))
    return named | {f"grad_{name}": one for name, one in zip(leaves, gradients, strict=True)}


def compare(impl: str, call: dict[str, Any], limit: float, **options: Any) -> None:
    """Checks all results against the recurrence in float64, fed with the same numbers."""
    if call.get("state") is not None or options.get("return_state"):
        options["return_state"] = True
    wide = {
        name: one.double() if isinstance(one, Tensor) and one.is_floating_point() else one
        for name, one in call.items()
    }
    expected = run(wide, impl="reference", **options)
    actual = run(call, impl=impl, **options)
    errors = {name: relative_error(actual[name], one) for name, one in expected.items()}
    # Where nothing is to be expected, the reference itself only rounds to it.
    errors = {name: error for name, error in errors.items() if expected[name].norm() > 1e-12}
    assert all(error <= limit for error in errors.values()), (impl, errors)
