"""How each kernel is launched for a call.

Shapes: B batch, H heads, X query and Y key blocks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..problem import Problem
from .arguments import as_bytes, padded, run
from .backward_kernels import key_value_kernel, query_kernel, sums_kernel
from .forward_kernel import forward_kernel
from .lists import Lists, list_blocks
from .merge_kernels import add_kernel, merge_kernel
from .tuning import backward_launch, forward_launch, tokens_per_step

# The longest work of one program, so that many share a long list.
_TOKENS_PER_ITEM = 4096
_MERGED_ROWS = 16


def launch_forward(
    problem: Problem,
    chosen: Tensor,
    coarse_out: Tensor | None,
    coarse_lse: Tensor,
    out: Tensor,
    lse: Tensor,
) -> None:
    """Fills ``out`` [B, H, Nq, Dv] and ``lse`` [B, H, Nq]."""
    rows = _row_lists(problem, chosen)
    launch = forward_launch(problem.options.block_size, _widest(problem), problem.query.dtype)
    size, value_channels = problem.options.block_size, problem.value.shape[-1]
    partial_out, partial_lse = rows.partial(size, value_channels), rows.partial(size)
    run(
        forward_kernel,
        _programs(rows, size // launch.rows),
        problem.query,
        problem.key,
        problem.value,
        as_bytes(problem.key_padding_mask),
        as_bytes(problem.query_padding_mask),
        coarse_out,
        coarse_lse,
        rows.items,
        rows.first_items,
        rows.slots,
        rows.starts,
        rows.entries,
        out,
        lse,
        partial_out,
        partial_lse,
        problem.scale,
        problem.query.shape[1],
        problem.query.shape[2],
        problem.key.shape[2],
        problem.blocks_x,
        rows.items_per_head,
        rows.slots_per_head,
        problem.capacity,
        *_strides(problem),
        **_sizes(problem),
        ROWS=launch.rows,
        KEYS_PER_STEP=launch.step,
        CHUNK=rows.chunk,
        HAS_COARSE=coarse_out is not None,
        HAS_KEY_MASK=problem.key_padding_mask is not None,
        HAS_QUERY_MASK=problem.query_padding_mask is not None,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    if rows.slots is not None:
        run(
            merge_kernel,
            rows.slots.numel() * size // _MERGED_ROWS,
            partial_out,
            partial_lse,
            rows.starts,
            rows.slots,
            out,
            lse,
            problem.query.shape[2],
            problem.blocks_x,
            rows.slots_per_head,
            VALUE_CHANNELS=value_channels,
            PADDED_VALUE_CHANNELS=padded(value_channels),
            BLOCK_SIZE=size,
            ROWS=_MERGED_ROWS,
            CHUNK=rows.chunk,
        )


def launch_sums(
    problem: Problem,
    coarse_lse: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    grad_lse: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the backward needs of each query, and the coarse scale of each query block.

    Returns:
        δ [B, H, Nq], and what `shares` takes: [B, H, X, Dv] and [B, H, X], filled in mode "full".
    """
    batch, heads, query_length, _ = problem.query.shape
    blocks = (batch, heads, problem.blocks_x)
    delta = torch.empty_like(lse)
    pulled = lse.new_empty(*blocks, problem.value.shape[-1])
    pulled_delta = lse.new_empty(blocks)
    sizes = _sizes(problem)
    run(
        sums_kernel,
        batch * heads * problem.blocks_x,
        out,
        grad_out,
        lse,
        None if grad_lse is None else grad_lse.contiguous(),
        coarse_lse,
        delta,
        pulled,
        pulled_delta,
        heads,
        query_length,
        problem.blocks_x,
        *grad_out.stride()[:3],
        VALUE_CHANNELS=sizes["VALUE_CHANNELS"],
        PADDED_VALUE_CHANNELS=sizes["PADDED_VALUE_CHANNELS"],
        BLOCK_SIZE=sizes["BLOCK_SIZE"],
        TOKENS_PER_STEP=tokens_per_step(sizes["BLOCK_SIZE"], sizes["PADDED_VALUE_CHANNELS"]),
        HAS_COARSE=problem.is_full,
        HAS_GRAD_LSE=grad_lse is not None,
    )
    return delta, pulled, pulled_delta


def launch_query_gradient(
    problem: Problem,
    chosen: Tensor,
    lse: Tensor,
    delta: Tensor,
    grad_out: Tensor,
    share: Tensor | None,
    grad: Tensor,
) -> None:
    """Fills ``grad`` [B, H, Nq, D]; ``share`` [B, H, X, D] comes from the coarse scale."""
    rows = _row_lists(problem, chosen)
    settings, pieces, step = _backward_settings(problem)
    partial = rows.partial(problem.options.block_size, grad.shape[-1])
    run(
        query_kernel,
        _programs(rows, pieces),
        problem.query,
        problem.key,
        problem.value,
        as_bytes(problem.key_padding_mask),
        grad_out,
        lse,
        delta,
        share,
        rows.items,
        rows.first_items,
        rows.slots,
        rows.starts,
        rows.entries,
        grad,
        partial,
        problem.scale,
        problem.query.shape[1],
        problem.query.shape[2],
        problem.key.shape[2],
        problem.blocks_x,
        rows.items_per_head,
        rows.slots_per_head,
        problem.capacity,
        *_strides(problem),
        *grad_out.stride()[:3],
        KEYS_PER_STEP=step,
        CHUNK=rows.chunk,
        **settings,
    )
    _add(rows, partial, grad)


def launch_key_value_gradients(
    problem: Problem,
    chosen: Tensor,
    lse: Tensor,
    delta: Tensor,
    grad_out: Tensor,
    shares: tuple[Tensor | None, Tensor | None],
    grads: tuple[Tensor, Tensor],
) -> None:
    """Fills ``grads`` [B, H, Nk, D or Dv]; ``shares`` [B, H, Y, ...] are the coarse scale's."""
    longest = min(problem.blocks_x, problem.capacity)
    columns = _lists(problem, chosen.flatten(0, 1).transpose(1, 2), longest)
    settings, pieces, step = _backward_settings(problem)
    partials = [columns.partial(problem.options.block_size, grad.shape[-1]) for grad in grads]
    run(
        key_value_kernel,
        _programs(columns, pieces),
        problem.query,
        problem.key,
        problem.value,
        as_bytes(problem.key_padding_mask),
        grad_out,
        lse,
        delta,
        *shares,
        columns.items,
        columns.first_items,
        columns.slots,
        columns.starts,
        columns.entries,
        *grads,
        *partials,
        problem.scale,
        problem.query.shape[1],
        problem.query.shape[2],
        problem.key.shape[2],
        problem.blocks_y,
        columns.items_per_head,
        columns.slots_per_head,
        problem.capacity,
        *_strides(problem),
        *grad_out.stride()[:3],
        QUERIES_PER_STEP=step,
        CHUNK=columns.chunk,
        **settings,
    )
    for partial, grad in zip(partials, grads, strict=True):
        _add(columns, partial, grad)


def _row_lists(problem: Problem, chosen: Tensor) -> Lists:
    """What each query block chose."""
    options = problem.options
    longest = options.block_per_row if options.selection == "per_row" else problem.capacity
    return _lists(problem, chosen.flatten(0, 1), min(longest, problem.blocks_y))


def _lists(problem: Problem, chosen: Tensor, longest: int) -> Lists:
    chunk = _TOKENS_PER_ITEM // problem.options.block_size
    return list_blocks(chosen, problem.capacity, longest, chunk)


def _programs(lists: Lists, pieces: int) -> int:
    return lists.starts.shape[0] * lists.items_per_head * pieces


def _add(lists: Lists, partial: Tensor | None, grad: Tensor) -> None:
    """Sums up the gradients [B, H, N, C] that the chunks of cut lists gave."""
    if partial is None or lists.slots is None:
        return
    _, size, channels = partial.shape
    run(
        add_kernel,
        lists.slots.numel() * size // _MERGED_ROWS,
        partial,
        lists.starts,
        lists.slots,
        grad,
        grad.shape[2],
        lists.slots.shape[1],
        lists.slots_per_head,
        CHANNELS=channels,
        PADDED_CHANNELS=padded(channels),
        BLOCK_SIZE=size,
        ROWS=_MERGED_ROWS,
        CHUNK=lists.chunk,
    )


def _backward_settings(problem: Problem) -> tuple[dict[str, Any], int, int]:
    """Settings of a gradient kernel, its programs per block, and tokens per step."""
    launch = backward_launch(problem.options.block_size, _widest(problem), problem.query.dtype)
    settings = {
        "ROWS": launch.rows,
        "HAS_COARSE": problem.is_full,
        "HAS_KEY_MASK": problem.key_padding_mask is not None,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        **_sizes(problem),
    }
    return settings, problem.options.block_size // launch.rows, launch.step


def _strides(problem: Problem) -> tuple[int, ...]:
    return (
        *problem.query.stride()[:3],
        *problem.key.stride()[:3],
        *problem.value.stride()[:3],
    )


def _widest(problem: Problem) -> int:
    return padded(max(problem.query.shape[-1], problem.value.shape[-1]))


def _sizes(problem: Problem) -> dict[str, Any]:
    channels, value_channels = problem.query.shape[-1], problem.value.shape[-1]
    return {
        "CHANNELS": channels,
        "VALUE_CHANNELS": value_channels,
        "PADDED_CHANNELS": padded(channels),
        "PADDED_VALUE_CHANNELS": padded(value_channels),
        "BLOCK_SIZE": problem.options.block_size,
        "PRECISION": "ieee" if problem.query.dtype == torch.float32 else "tf32",
    }
