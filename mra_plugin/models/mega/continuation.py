"""Attention of new tokens that follow others, whose keys and values a cache holds."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .attention import fused, weights_of
from .positions import Bias


class Following(NamedTuple):
    """New tokens behind old ones.

    Attributes:
        query: [B, L, S], of the new ones.
        key: [B, T + L, S], of old and new.
        value: [B, T + L, E], likewise.
        real: bool [B, T + L], True = a real token; None if all are.
        leading: int [B], tokens of padding in front of the sequence; None if there are none.
        read: tokens that were read before; T of them, the last, are here.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    real: Tensor | None
    leading: Tensor | None
    read: int


def following_attention(
    function: str,
    inputs: Following,
    positions: Bias,
    chunk: int | None,
    wants_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention of new tokens to old and new ones, a chunk's length at a time.

    Args:
        function: ``"softmax"``, ``"laplace"`` or ``"relu2"``.
        inputs: the tokens.
        positions: gives the bias.
        chunk: tokens of a chunk; None: the sequence is one.
        wants_weights: whether the matrix is to be given out.

    Returns:
        [B, L, E], and the matrix [B, 1, L, T + L] or None.
    """
    length, keys = inputs.query.shape[1], inputs.key.shape[1]
    old = keys - length
    step = length if chunk is None else chunk
    outs, matrices = [], []
    for start in range(0, length, step):
        end = min(start + step, length)
        first = 0 if chunk is None else max(old + start - chunk + 1, 0)
        last = old + end
        query, key = inputs.query[:, start:end], inputs.key[:, first:last]
        value = inputs.value[:, first:last]
        seen = _seen(inputs, old + start, end - start, first, last, chunk)
        bias = positions.between(end - start, last - first, old + start - first)
        if function == "softmax" and not wants_weights:
            nothing = ~seen.any(-1, keepdim=True)
            mask = torch.where(seen | nothing, bias.to(query.dtype), -math.inf)
            scale = query.shape[-1] ** -0.5
            outs.append(fused(query, key, value, mask, False, scale, 0.0))
            continue
        weights = weights_of(function, query, key, bias, seen)
        outs.append(weights @ value)
        matrices.append(functional.pad(weights, (first, keys - last)))
    return torch.cat(outs, 1), torch.cat(matrices, 1)[:, None] if wants_weights else None


def _seen(
    inputs: Following, start: int, queries: int, first: int, last: int, chunk: int | None
) -> Tensor:
    """Which keys from ``first`` on queries from ``start`` on see: bool [B or 1, Nq, Nk]."""
    device = inputs.query.device
    query = torch.arange(start, start + queries, device=device)
    key = torch.arange(first, last, device=device)
    seen = (key <= query[:, None])[None]
    if inputs.real is not None:
        seen = seen & inputs.real[:, None, first:last]
    if chunk is not None:
        # Where a position counts from the first real token.
        old = inputs.key.shape[1] - inputs.query.shape[1]
        from_front = inputs.read - old
        offset: Tensor | int = from_front
        if inputs.leading is not None:
            offset = from_front - inputs.leading[:, None]
        query_chunk = torch.div(query + offset, chunk, rounding_mode="floor")
        key_chunk = torch.div(key + offset, chunk, rounding_mode="floor")
        seen = seen & (query_chunk[..., :, None] == key_chunk[..., None, :])
    return seen
