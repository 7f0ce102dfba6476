"""The fine scale of a call: attention over chosen blocks and salient keys.

It is started from the coarse scale.

Shapes: B batch, H heads, X query and Y key blocks, g salient keys.
"""

from __future__ import annotations

from torch import Tensor

from ..launching import as_bytes, run
from ..problem import Problem
from .arguments import lengths, padded, sizes, strides, widest
from .kernels.fine_forward import forward_kernel
from .kernels.merging import merge_kernel
from .lists import MERGED_ROWS, row_lists
from .tuning import forward_launch


def launch_forward(
    problem: Problem,
    chosen: Tensor,
    salient: Tensor,
    coarse_out: Tensor | None,
    coarse_lse: Tensor,
    out: Tensor,
    lse: Tensor,
) -> None:
    """Fills ``out`` [B, H, Nq, Dv] and ``lse`` [B, H, Nq]; ``salient`` is int64 [B, H, g]."""
    rows = row_lists(problem, chosen)
    launch = forward_launch(problem.options.block_size, widest(problem), problem.query.dtype)
    size, value_channels = problem.options.block_size, problem.value.shape[-1]
    partial_out, partial_lse = rows.partial(size, value_channels), rows.partial(size)
    run(
        forward_kernel,
        rows.programs(size // launch.rows),
        problem.query,
        problem.key,
        problem.value,
        as_bytes(problem.key_padding_mask),
        as_bytes(problem.query_padding_mask),
        coarse_out,
        coarse_lse,
        salient,
        as_bytes(chosen),
        *rows.tensors,
        out,
        lse,
        partial_out,
        partial_lse,
        *lengths(problem),
        *rows.lengths,
        problem.blocks_y,
        salient.shape[-1],
        *strides(problem),
        **sizes(problem),
        ROWS=launch.rows,
        KEYS_PER_STEP=launch.step,
        CHUNK=rows.chunk,
        HAS_COARSE=coarse_out is not None,
        HAS_SALIENT=bool(salient.shape[-1]),
        HAS_KEY_MASK=problem.key_padding_mask is not None,
        HAS_QUERY_MASK=problem.query_padding_mask is not None,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    if rows.slots is not None:
        run(
            merge_kernel,
            rows.slots.numel() * size // MERGED_ROWS,
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
            ROWS=MERGED_ROWS,
            CHUNK=rows.chunk,
        )
