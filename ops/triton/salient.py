"""The gradients of salient keys and values, where their blocks were not chosen.

Shapes: B batch, H heads, X query and Y key blocks, g salient keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..launching import as_bytes, run
from ..problem import Problem
from .arguments import padded, sizes, strides, widest
from .kernels.salient import salient_kernel
from .tuning import backward_launch

# Queries of one program, so that many share what all queries see.
_CHUNK = 1024


class SalientGradients(NamedTuple):
    """What salient keys get, and where they are.

    Attributes:
        at: int32 [B, H, Nk + 1]; behind a key's own place stands its number among the salient ones,
            or -1.
        grads: of key and value, side by side, float32 [B, H, g, D + Dv].
    """

    at: Tensor
    grads: Tensor


def salient_gradients(
    problem: Problem,
    chosen: Tensor,
    salient: Tensor,
    lse: Tensor,
    delta: Tensor,
    grad_out: Tensor,
) -> SalientGradients | None:
    """What salient keys get from queries that did not choose their blocks, if there are any.

    Args:
        problem: the call.
        chosen: bool [B, H, X, Y].
        salient: int64 [B, H, g].
        lse: float32 [B, H, Nq].
        delta: float32 [B, H, Nq].
        grad_out: [B, H, Nq, Dv].
    """
    batch, heads, asked = salient.shape
    if not asked:
        return None
    query_length, channels = problem.query.shape[-2:]
    launch = backward_launch(min(padded(asked), 128), widest(problem), problem.query.dtype)
    chunks = triton.cdiv(query_length, _CHUNK)
    partial = lse.new_empty(batch, heads, chunks, asked, channels + problem.value.shape[-1])
    run(
        salient_kernel,
        batch * heads * chunks * triton.cdiv(asked, launch.rows),
        problem.query,
        problem.key,
        problem.value,
        grad_out,
        lse,
        delta,
        salient,
        as_bytes(chosen),
        partial,
        problem.scale,
        heads,
        query_length,
        problem.blocks_x,
        problem.blocks_y,
        asked,
        *strides(problem),
        *grad_out.stride()[:3],
        ROWS=launch.rows,
        QUERIES_PER_STEP=launch.step,
        CHUNK=_CHUNK,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
        **sizes(problem),
    )
    grads = partial[:, :, 0] if chunks == 1 else partial.sum(2)
    numbers = torch.arange(asked, dtype=torch.int32, device=salient.device).expand_as(salient)
    at = numbers.new_full((batch, heads, problem.key.shape[-2] + 1), -1)
    # What is none goes to a place of its own.
    return SalientGradients(at.scatter_(-1, salient + 1, numbers), grads)
