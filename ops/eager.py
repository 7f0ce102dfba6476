"""MRA attention in plain PyTorch: fast on CPU, right on any device.

Forward and backward are operators of their own, opaque to tracing, because the work is laid out
by looking at the chosen blocks. Heads are worked on in groups, see `head_group`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .blocks import accumulation_dtype, block_count
from .choice import choose_blocks
from .head_group import HeadGroup, backward, forward
from .options import MRAOptions
from .pooled import parts

# Bytes of keys and values of the heads worked on together: bounds the coarse matrices and the
# copies that tails and strided inputs need.
_GROUP_BYTES_CPU = 16 << 20
_GROUP_BYTES = 2 << 30


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """MRA attention without its dense matrix.

    Args:
        query: [B, H, Nq, D].
        key: [B, H, Nk, D].
        value: [B, H, Nk, Dv].
        key_padding_mask: bool [B, Nk] or None.
        query_padding_mask: bool [B, Nq] or None.
        options: block size, budget, mode, priors, selection.
        scale: factor of the scores.

    Returns:
        Output [B, H, Nq, Dv] in the query's type and the log-sum-exp [B, H, Nq] in the
        accumulation type (-inf where a query attends to nothing).
    """
    out, lse, _ = _forward(
        query,
        key,
        value,
        key_padding_mask,
        query_padding_mask,
        options.block_size,
        options.block_per_row,
        options.num_blocks,
        options.approx_mode,
        options.initial_prior_first_n_blocks,
        options.initial_prior_diagonal_n_blocks,
        options.selection,
        scale,
    )
    return out, lse


@torch.library.custom_op("mra_plugin::eager_forward", mutates_args=())
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    block_size: int,
    block_per_row: int,
    num_blocks: int | None,
    approx_mode: str,
    initial_prior_first_n_blocks: int,
    initial_prior_diagonal_n_blocks: int,
    selection: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp and chosen blocks (bool [B, H, X, Y])."""
    options = MRAOptions(
        block_size=block_size,
        block_per_row=block_per_row,
        num_blocks=num_blocks,
        approx_mode=approx_mode,  # type: ignore[arg-type]
        initial_prior_first_n_blocks=initial_prior_first_n_blocks,
        initial_prior_diagonal_n_blocks=initial_prior_diagonal_n_blocks,
        selection=selection,  # type: ignore[arg-type]
    )
    out, lse, chosen = _empty_results(query, key, value, block_size)
    with torch.autocast(query.device.type, enabled=False):
        for part in _parts(query, key, value):
            group = HeadGroup.cut(
                part, query, key, value, key_padding_mask, query_padding_mask, block_size, scale
            )
            chosen[part] = choose_blocks(
                group.pooled.scores, group.pooled.query_counts, group.pooled.key_counts, options
            )
            forward(group, chosen[part], approx_mode == "full", out[part], lse[part])
    return out, lse, chosen


@_forward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, _k: Any, _q: Any, block_size: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_results(query, key, value, block_size)


@torch.library.custom_op("mra_plugin::eager_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    chosen: Tensor,
    block_size: int,
    approx_mode: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    grads = _empty_gradients(query, key, value)
    with torch.autocast(query.device.type, enabled=False):
        for part in _parts(query, key, value):
            group = HeadGroup.cut(
                part, query, key, value, key_padding_mask, query_padding_mask, block_size, scale
            )
            backward(
                group,
                chosen[part],
                approx_mode == "full",
                out[part],
                lse[part],
                grad_out[part],
                None if grad_lse is None else grad_lse[part],
                (grads[0][part], grads[1][part], grads[2][part]),
            )
    return grads


@_backward.register_fake
def _(
    _grad_out: Tensor, _grad_lse: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(query, key, value)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, key_mask, query_mask, block_size, _, _, approx_mode, _, _, _, scale = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, key_mask, query_mask, *output)
    ctx.options = (block_size, approx_mode, scale)


def _differentiate(
    ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, _: None
) -> tuple[Tensor | None, ...]:
    query, key, value, key_mask, query_mask, out, lse, chosen = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    grads = _backward(
        grad_out, grad_lse, query, key, value, key_mask, query_mask, out, lse, chosen, *ctx.options
    )
    return (*grads, *(None,) * 10)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _empty_results(
    query: Tensor, key: Tensor, value: Tensor, block_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, length, _ = query.shape
    blocks_x = block_count(length, block_size)
    blocks_y = block_count(key.shape[-2], block_size)
    return (
        query.new_empty(batch, heads, length, value.shape[-1]),
        query.new_empty(batch, heads, length, dtype=accumulation_dtype(query.dtype)),
        query.new_empty(batch, heads, blocks_x, blocks_y, dtype=torch.bool),
    )


def _empty_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        query.new_empty(query.shape),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
    )


def _parts(query: Tensor, key: Tensor, value: Tensor) -> Iterator[tuple[slice, slice]]:
    limit = _GROUP_BYTES_CPU if query.device.type == "cpu" else _GROUP_BYTES
    head_bytes = key.element_size() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    return parts(query.shape[0], query.shape[1], limit // max(head_bytes, 1))
