"""What the tests of the operators share: random inputs, and both directions of a call at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mra_plugin.ops import mra_attention


def random_inputs(
    batch: int = 2,
    heads: int = 2,
    query_length: int = 96,
    key_length: int | None = None,
    channels: int = 16,
    value_channels: int | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value; blocks differ in their means, so that the choice is clear."""
    generator = torch.Generator().manual_seed(seed)
    key_length = query_length if key_length is None else key_length
    shapes = (
        (query_length, channels),
        (key_length, channels),
        (key_length, channels if value_channels is None else value_channels),
    )
    return tuple(  # type: ignore[return-value]
        (
            torch.randn(batch, heads, *shape, dtype=torch.float64, generator=generator)
            + torch.randn(batch, heads, 1, shape[1], dtype=torch.float64, generator=generator)
            * torch.linspace(-1, 1, max(shape[0], 1), dtype=torch.float64)[:, None]
        ).to(dtype)
        for shape in shapes
    )


def padding_mask(lengths: list[int], longest: int) -> Tensor:
    return torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]


def run(
    inputs: tuple[Tensor, Tensor, Tensor], *masks: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Output, log-sum-exp and the gradients of query, key and value, for fixed random cotangents.

    The log-sum-exp takes part in the loss where it is finite.
    """
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out, lse = mra_attention(*leaves, *masks, return_lse=True, **options)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(out.shape, dtype=torch.float64, generator=generator).to(out.device)
    lse_weight = torch.randn(lse.shape, dtype=torch.float64, generator=generator).to(lse.device)
    finite = torch.where(lse == float("-inf"), 0, lse)
    loss = (out * weight).sum() + (finite * lse_weight).sum()
    loss.backward()
    grads = [leaf.grad for leaf in leaves]
    assert all(grad is not None for grad in grads)
    return (out.detach(), lse.detach(), *grads)  # type: ignore[return-value]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what was expected; -inf agrees with -inf alone."""
    actual, expected = actual.double(), expected.double()
    infinite = expected == float("-inf")
    assert torch.equal(infinite, actual == float("-inf"))
    actual, expected = actual.masked_fill(infinite, 0), expected.masked_fill(infinite, 0)
    norm = expected.norm().item()
    difference = (actual - expected).norm().item()
    return difference / norm if norm else difference


def assert_close(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], limit: float) -> None:
    names = ("output", "lse", "grad_query", "grad_key", "grad_value")
    errors = {
        name: relative_error(a, e) for name, a, e in zip(names, actual, expected, strict=True)
    }
    assert all(error <= limit for error in errors.values()), errors
