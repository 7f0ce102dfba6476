"""The gradients of the fine scale: sums over queries, then queries, then keys and values.

Shapes: B batch, H heads, X query and Y key blocks, Z cells of keys, g salient keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..blocks import block_count
from ..launching import as_bytes, run
from ..problem import Problem
from .arguments import lengths, padded, sizes, strides, widest
from .kernels.fine_backward import key_value_kernel, query_kernel
from .kernels.merging import add_kernel
from .kernels.sums import sums_kernel
from .lists import MERGED_ROWS, Lists, column_lists, row_lists
from .salient import SalientGradients
from .tuning import backward_launch, tokens_per_step


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
    channels = problem.value.shape[-1]
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
        VALUE_CHANNELS=channels,
        PADDED_VALUE_CHANNELS=padded(channels),
        BLOCK_SIZE=problem.options.block_size,
        TOKENS_PER_STEP=tokens_per_step(problem.options.block_size, padded(channels)),
        HAS_COARSE=problem.is_full,
        HAS_GRAD_LSE=grad_lse is not None,
    )
    return delta, pulled, pulled_delta


def launch_query_gradient(
    problem: Problem,
    chosen: Tensor,
    salient: Tensor,
    lse: Tensor,
    delta: Tensor,
    grad_out: Tensor,
    share: Tensor | None,
    grad: Tensor,
) -> None:
    """Fills ``grad`` [B, H, Nq, D]; ``share`` [B, H, X, D] comes from the coarse scale."""
    rows = row_lists(problem, chosen)
    settings, pieces, step = _backward_settings(problem)
    partial = rows.partial(problem.options.block_size, grad.shape[-1])
    run(
        query_kernel,
        rows.programs(pieces),
        problem.query,
        problem.key,
        problem.value,
        as_bytes(problem.key_padding_mask),
        grad_out,
        lse,
        delta,
        share,
        salient,
        as_bytes(chosen),
        *rows.tensors,
        grad,
        partial,
        *lengths(problem),
        *rows.lengths,
        problem.blocks_y,
        salient.shape[-1],
        *strides(problem),
        *grad_out.stride()[:3],
        KEYS_PER_STEP=step,
        CHUNK=rows.chunk,
        **settings,
    )
    _add(rows, partial, grad)


def launch_key_value_gradients(
    problem: Problem,
    chosen: Tensor,
    salient: Tensor,
    lse: Tensor,
    delta: Tensor,
    grad_out: Tensor,
    shares: tuple[Tensor | None, Tensor | None],
    found: SalientGradients | None,
    grads: tuple[Tensor, Tensor],
) -> None:
    """Fills ``grads`` [B, H, Nk, D or Dv].

    ``shares`` [B, H, Z, D or Dv] are the coarse scale's, ``found`` what salient keys get besides.
    """
    columns, cell_size = column_lists(problem, chosen), problem.options.cell_size
    settings, pieces, step = _backward_settings(problem)
    partials = [columns.partial(problem.options.block_size, grad.shape[-1]) for grad in grads]
    run(
        key_value_kernel,
        columns.programs(pieces),
        problem.query,
        problem.key,
        problem.value,
        as_bytes(problem.key_padding_mask),
        grad_out,
        lse,
        delta,
        *shares,
        *((None, None) if found is None else found),
        *columns.tensors,
        *grads,
        *partials,
        *lengths(problem),
        *columns.lengths,
        block_count(problem.key.shape[2], cell_size),
        salient.shape[-1],
        *strides(problem),
        *grad_out.stride()[:3],
        CELL_SIZE=cell_size,
        QUERIES_PER_STEP=step,
        CHUNK=columns.chunk,
        **settings,
    )
    for partial, grad in zip(partials, grads, strict=True):
        _add(columns, partial, grad)


def _backward_settings(problem: Problem) -> tuple[dict[str, Any], int, int]:
    """Settings of a gradient kernel, its programs per block, and tokens per step."""
    launch = backward_launch(problem.options.block_size, widest(problem), problem.query.dtype)
    settings = {
        "ROWS": launch.rows,
        "HAS_COARSE": problem.is_full,
        "HAS_SALIENT": bool(problem.options.salient_keys),
        "HAS_KEY_MASK": problem.key_padding_mask is not None,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        **sizes(problem),
    }
    return settings, problem.options.block_size // launch.rows, launch.step


def _add(lists: Lists, partial: Tensor | None, grad: Tensor) -> None:
    """Sums up the gradients [B, H, N, C] that the chunks of cut lists gave."""
    if partial is None or lists.slots is None:
        return
    _, size, channels = partial.shape
    run(
        add_kernel,
        lists.slots.numel() * size // MERGED_ROWS,
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
        ROWS=MERGED_ROWS,
        CHUNK=lists.chunk,
    )
