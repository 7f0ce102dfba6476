"""Attention of one head: its three functions, in whole sequences, in chunks, and on a cache.

Scores are q·k S^(-1/2) + bias for softmax, and q·k / n + bias for the other two, where n is how
many tokens a query sees. The bias is not scaled. Mega, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .positions import Bias, RotaryBias

# Of the function that the authors fit to relu squared.
_LAPLACE_MEAN, _LAPLACE_DEVIATION = math.sqrt(0.5), math.sqrt(0.25 / math.pi)

# Of whose scores a matrix would take much memory, more than time is gained by it.
_MANY_PAIRS = 4096**2
# Queries of a decoder that are taken together; keys ahead of all of them cost nothing.
_QUERIES = 256


class Inputs(NamedTuple):
    """What attention is given.

    Attributes:
        query: [B, L, S].
        key: [B, L, S].
        value: [B, L, E].
        padding: bool [B, L], True = a real token; None if all are.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    padding: Tensor | None

    def cut(self, start: int, end: int, size: int) -> Inputs:
        """Tokens from ``start`` to ``end``, with the chunks of ``size`` as rows of the batch."""

        def rows(x: Tensor) -> Tensor:
            return x[:, start:end].reshape(-1, size, *x.shape[2:])

        padding = None if self.padding is None else rows(self.padding)
        return Inputs(rows(self.query), rows(self.key), rows(self.value), padding)


def weights_of(
    function: str, query: Tensor, key: Tensor, bias: Tensor, seen: Tensor | None
) -> Tensor:
    """The matrix that values are multiplied with.

    Args:
        function: ``"softmax"``, ``"laplace"`` or ``"relu2"``.
        query: [B, Nq, S].
        key: [B, Nk, S].
        bias: [Nq, Nk] or [B, Nq, Nk].
        seen: bool [Nq, Nk], where every query sees one, or [B, Nq or 1, Nk]: which keys a query
            sees. None: all. A query that sees none gets a softmax of all, which is finite, and
            zeros from the other two.

    Returns:
        [B, Nq, Nk], in the data type of ``query``.
    """
    if function == "softmax":
        if seen is not None:
            # One for all rows is causal, and there every query sees itself.
            bias = bias.masked_fill(~(seen if seen.ndim == 2 else _some(seen)), -math.inf)
        return _scores(query * query.shape[-1] ** -0.5, key, bias).softmax(-1).to(query.dtype)
    if seen is None:
        count: Tensor | int = key.shape[1]
    else:
        count = seen.sum(-1, keepdim=True).clamp(min=1).to(query.dtype)
    scores = _scores(query / count, key, bias)
    if function == "laplace":
        weights = 0.5 * (1 + torch.erf((scores - _LAPLACE_MEAN) / (_LAPLACE_DEVIATION * 2**0.5)))
    else:
        weights = scores.relu().square()
    if seen is not None:
        weights = weights.masked_fill(~seen, 0)
    return weights.to(query.dtype)


def whole_attention(
    function: str,
    inputs: Inputs,
    positions: Bias,
    causal: bool,
    dropout: float = 0.0,
    wants_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Self-attention of all tokens to all, or to those before.

    Softmax goes by way of PyTorch's fused attention, with rotary positions as features of query
    and key, unless the matrix is wanted; and on a CPU where the matrix is small, which is faster.

    Args:
        function: ``"softmax"``, ``"laplace"`` or ``"relu2"``.
        inputs: of L tokens.
        positions: gives the bias.
        causal: whether tokens see only themselves and those before.
        dropout: probability that a weight is dropped.
        wants_weights: whether the matrix is to be given out.

    Returns:
        [B, L, E], and the matrix [B, L, L] or None.
    """
    query, key, value, padding = inputs
    length = query.shape[1]
    is_small = query.device.type == "cpu" and length * length < _MANY_PAIRS
    if function != "softmax" or wants_weights or is_small:
        return _by_matrix(function, inputs, positions, causal, dropout, wants_weights)
    if isinstance(positions, RotaryBias):
        query, key = with_features(query, key, positions)
        fully_causal = causal and padding is None
        seen = None if fully_causal else seen_in_a_row(length, padding, causal, query.device)
        mask = None if seen is None else _some(seen)
        return fused(query, key, value, mask, fully_causal, 1.0, dropout), None
    mask = positions.between(length, length).to(query.dtype)
    seen = seen_in_a_row(length, padding, causal, query.device)
    if seen is not None:
        mask = torch.where(_some(seen), mask, -math.inf)
    return fused(query, key, value, mask, False, query.shape[-1] ** -0.5, dropout), None


def _by_matrix(
    function: str,
    inputs: Inputs,
    positions: Bias,
    causal: bool,
    dropout: float,
    wants_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    query, key, value, padding = inputs
    length = query.shape[1]
    bias = positions.between(length, length)
    seen = seen_in_a_row(length, padding, causal, query.device)
    in_parts = causal and not wants_weights and not torch.compiler.is_compiling()
    step = _QUERIES if in_parts else max(length, 1)
    outs = []
    for start in range(0, max(length, 1), step):
        end = min(start + step, length)
        last = end if causal else length
        own = None if seen is None else seen[..., start:end, :last]
        weights = weights_of(
            function, query[:, start:end], key[:, :last], bias[start:end, :last], own
        )
        weights = functional.dropout(weights, dropout)
        outs.append(weights @ value[:, :last])
    out = torch.cat(outs, 1) if len(outs) > 1 else outs[0]
    return out, weights if wants_weights else None


def with_features(query: Tensor, key: Tensor, positions: RotaryBias) -> tuple[Tensor, Tensor]:
    """Query and key [B, L, 2 S] whose products are the scores, to be scaled by 1."""
    length = query.shape[1]
    of_query, of_key = (
        x.to(query.dtype).expand(query.shape[0], -1, -1) for x in positions.features(length, length)
    )
    scaled = query * query.shape[-1] ** -0.5
    return torch.cat([scaled, of_query], -1), torch.cat([key, of_key], -1)


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scale: float,
    dropout: float,
) -> Tensor:
    """PyTorch's own attention, [B, Nq, W], [B, Nk, W] and [B, Nk, E] to [B, Nq, E].

    Args:
        query: [B, Nq, W].
        key: [B, Nk, W].
        value: [B, Nk, E].
        mask: to be broadcast to [B, Nq, Nk], bool (True = seen) or added to the scores.
        causal: in place of a mask.
        scale: factor on the products.
        dropout: probability that a weight is dropped.
    """
    width, heads = query.shape[-1], 1
    large = query.shape[1] * key.shape[1] >= _MANY_PAIRS
    if query.device.type == "cpu" and large and value.shape[-1] % width == 0:
        # There what needs no matrix wants values as wide as queries: a head for each part.
        heads = value.shape[-1] // width
    out: Tensor = functional.scaled_dot_product_attention(
        query[:, None].expand(-1, heads, -1, -1),
        key[:, None].expand(-1, heads, -1, -1),
        value.unflatten(-1, (heads, -1)).transpose(1, 2),
        attn_mask=mask if mask is None or mask.ndim == 2 else mask[:, None],
        dropout_p=dropout,
        is_causal=causal,
        scale=scale,
    )
    return out.transpose(1, 2).flatten(2)


def seen_in_a_row(
    length: int, padding: Tensor | None, causal: bool, device: torch.device
) -> Tensor | None:
    """Which tokens see which: bool [L, L], [B, 1, L] or [B, L, L]; None if all see all."""
    seen = None if padding is None else padding[:, None, :]
    if causal:
        before = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        seen = before if seen is None else before & seen
    return seen


def _some(seen: Tensor) -> Tensor:
    """The same, but a query that sees nothing sees all: a softmax over nothing is not-a-number."""
    return seen | ~seen.any(-1, keepdim=True)


def _scores(query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
    """Products and bias, [B, Nq, Nk] in single precision at least."""
    wide = torch.promote_types(query.dtype, torch.float32)
    if query.dtype == bias.dtype == wide:
        shape = (query.shape[0], query.shape[1], key.shape[1])
        return torch.baddbmm(bias.expand(shape), query, key.mT)  # one pass less
    return (query @ key.mT).to(wide) + bias
