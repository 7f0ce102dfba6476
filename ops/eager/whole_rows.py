"""Sequences that are exact as a whole, beside others that are not: each head is one tile.

Shapes: B' sequences, H heads, T = B'·H, W the wider of D and Dv.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..blocks import accumulation_dtype
from ..problem import Problem
from .tiles import tile_backward, tile_forward


def attend(problem: Problem) -> tuple[Tensor, Tensor]:
    """Output [B', H, Nq, Dv] and log-sum-exp [B', H, Nq] of exact attention."""
    query, key, value, bias, served = _tiles(problem)
    out, lse = tile_forward(query, key, value, bias, problem.scale)
    out = out[..., : problem.value.shape[-1]].view(*problem.query.shape[:3], -1)
    lse = lse.view(problem.query.shape[:3])
    out = out.masked_fill(~served[..., None], 0).to(problem.query.dtype)
    return out, lse.masked_fill(~served, float("-inf"))


def gradients(
    problem: Problem, out: Tensor, lse: Tensor, grad_out: Tensor, grad_lse: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, given the results and their gradients."""
    query, key, value, bias, served = _tiles(problem)
    unserved = ~served[..., None]
    width, dtype = query.shape[-1], query.dtype
    grads = tile_backward(
        _wide(grad_out.masked_fill(unserved, 0), width, dtype),
        None if grad_lse is None else grad_lse.masked_fill(~served, 0).flatten(0, 1),
        query,
        key,
        value,
        _wide(out.masked_fill(unserved, 0), width, dtype),
        lse.masked_fill(~served, float("inf")).flatten(0, 1),
        bias,
        problem.scale,
    )
    inputs = (problem.query, problem.key, problem.value)
    return tuple(  # type: ignore[return-value]
        grad[..., : x.shape[-1]].view(x.shape).to(x.dtype)
        for grad, x in zip(grads, inputs, strict=True)
    )


def _tiles(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Query, key and value [T, N, W], bias [T, 1, Nk] or None, and served queries [B', 1, Nq]."""
    query, key, value = problem.query, problem.key, problem.value
    key_mask, query_mask = problem.key_padding_mask, problem.query_padding_mask
    dtype, width = accumulation_dtype(query.dtype), max(query.shape[-1], value.shape[-1])
    served = query.new_ones(len(query), 1, query.shape[-2], dtype=torch.bool)
    bias = None
    if query_mask is not None:
        # Whatever stands at padding: 0 times nan would be nan.
        query = query.masked_fill(~query_mask[:, None, :, None], 0)
        served = query_mask[:, None]
    if key_mask is not None:
        padding = ~key_mask[:, None, :, None]
        key, value = key.masked_fill(padding, 0), value.masked_fill(padding, 0)
        any_key = key_mask.any(-1)[:, None]
        served = served & any_key[..., None]
        # A softmax over nothing would be nan.
        bias = torch.zeros_like(key_mask, dtype=dtype).masked_fill_(
            ~(key_mask | ~any_key), -torch.inf
        )
        bias = bias[:, None].expand(-1, query.shape[1], -1).flatten(0, 1)[:, None]
    query, key, value = (_wide(x, width, dtype) for x in (query, key, value))
    return query, key, value, bias, served


def _wide(x: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """[B', H, N, C] as [T, N, W]."""
    x = x.to(dtype)
    if missing := width - x.shape[-1]:
        x = torch.nn.functional.pad(x, (0, missing))
    return x.flatten(0, 1)
