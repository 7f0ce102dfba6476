"""The kernels as PyTorch operators, with gradients.

Between input and output nothing waits for the device, so a CUDA graph can hold all of it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
from torch import Tensor

from ..blocks import block_count
from ..options import MRAOptions
from .backward_kernels import key_value_kernel, query_kernel, sums_kernel
from .coarse_part import Problem, choose_and_attend, shares
from .forward_kernel import forward_kernel
from .lists import list_blocks
from .tuning import backward_launch, forward_launch


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """MRA attention by Triton kernels.

    Args:
        query: [B, H, Nq, D], float16, bfloat16 or float32.
        key: [B, H, Nk, D].
        value: [B, H, Nk, Dv].
        key_padding_mask: bool [B, Nk] or None.
        query_padding_mask: bool [B, Nq] or None.
        options: block size, budget, mode, priors, selection.
        scale: factor of the scores.

    Returns:
        Output [B, H, Nq, Dv] in the query's type and the log-sum-exp [B, H, Nq] in float32 (-inf
        where a query attends to nothing).
    """
    out, lse, *_ = _forward(
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


@torch.library.custom_op("mra_plugin::fused_forward", mutates_args=())
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, log-sum-exp, chosen blocks (bool [B, H, X, Y]), coarse log-sum-exp [B, H, X]."""
    options = MRAOptions(
        block_size=block_size,
        block_per_row=block_per_row,
        num_blocks=num_blocks,
        approx_mode=approx_mode,  # type: ignore[arg-type]
        initial_prior_first_n_blocks=initial_prior_first_n_blocks,
        initial_prior_diagonal_n_blocks=initial_prior_diagonal_n_blocks,
        selection=selection,  # type: ignore[arg-type]
    )
    problem = _problem(query, key, value, key_padding_mask, query_padding_mask, options, scale)
    out, lse, chosen, coarse_lse = _empty_results(query, key, value, block_size)
    with _alone_on(query):
        chosen, coarse_out, attended_lse = choose_and_attend(problem)
        if attended_lse is not None:
            coarse_lse = attended_lse
        launch_forward(problem, chosen, coarse_out, attended_lse, out, lse)
    return out, lse, chosen, coarse_lse


@_forward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, _k: Any, _q: Any, block_size: int, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_results(query, key, value, block_size)


@torch.library.custom_op("mra_plugin::fused_backward", mutates_args=())
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
    coarse_lse: Tensor,
    block_size: int,
    block_per_row: int,
    num_blocks: int | None,
    approx_mode: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    options = MRAOptions(
        block_size=block_size,
        block_per_row=block_per_row,
        num_blocks=num_blocks,
        approx_mode=approx_mode,  # type: ignore[arg-type]
    )
    problem = _problem(query, key, value, key_padding_mask, query_padding_mask, options, scale)
    grads = _empty_gradients(query, key, value)
    with _alone_on(query):
        launch_backward(problem, chosen, coarse_lse, out, lse, grad_out, grad_lse, grads)
    return grads


@_backward.register_fake
def _(
    _grad_out: Tensor, _grad_lse: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(query, key, value)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors, (block_size, block_per_row, num_blocks, approx_mode, *_, scale) = (
        inputs[:5],
        inputs[5:],
    )
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)
    ctx.options = (block_size, block_per_row, num_blocks, approx_mode, scale)


def _differentiate(
    ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, *_: None
) -> tuple[Tensor | None, ...]:
    if grad_out is None:
        grad_out = torch.zeros_like(ctx.saved_tensors[5])
    grads = _backward(grad_out, grad_lse, *ctx.saved_tensors, *ctx.options)
    return (*grads, *(None,) * 10)


_forward.register_autograd(_differentiate, setup_context=_setup_context)


def launch_forward(
    problem: Problem,
    chosen: Tensor,
    coarse_out: Tensor | None,
    coarse_lse: Tensor | None,
    out: Tensor,
    lse: Tensor,
) -> None:
    """Fills ``out`` [B, H, Nq, Dv] and ``lse`` [B, H, Nq]."""
    if not lse.numel():
        return
    rows = list_blocks(chosen.flatten(0, 1), problem.capacity)
    launch = forward_launch(problem.options.block_size, _widest(problem), problem.query.dtype)
    forward_kernel[(rows.order.shape[0] * problem.options.block_size // launch.rows,)](
        problem.query,
        problem.key,
        problem.value,
        _bytes(problem.key_padding_mask),
        _bytes(problem.query_padding_mask),
        coarse_out,
        coarse_lse,
        rows.order,
        rows.starts,
        rows.entries,
        out,
        lse,
        problem.scale,
        problem.query.shape[1],
        problem.query.shape[2],
        problem.key.shape[2],
        problem.blocks_x,
        problem.capacity,
        *_strides(problem),
        **_sizes(problem),
        ROWS=launch.rows,
        KEYS_PER_STEP=launch.step,
        HAS_COARSE=coarse_lse is not None,
        HAS_KEY_MASK=problem.key_padding_mask is not None,
        HAS_QUERY_MASK=problem.query_padding_mask is not None,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )


def launch_backward(
    problem: Problem,
    chosen: Tensor,
    coarse_lse: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    grad_lse: Tensor | None,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Fills ``grads``, shaped like query, key and value."""
    query, key, value = problem.query, problem.key, problem.value
    batch, heads, query_length, _ = query.shape
    full = problem.options.approx_mode == "full"
    if not lse.numel():
        for grad in grads:
            grad.zero_()
        return
    if grad_out.stride(-1) != 1:
        grad_out = grad_out.contiguous()
    blocks = (batch, heads, problem.blocks_x)
    delta = torch.empty_like(lse)
    pulled = lse.new_empty(*blocks, value.shape[-1])
    pulled_delta = lse.new_empty(blocks)
    sizes = _sizes(problem)
    sums_kernel[(batch * heads * problem.blocks_x,)](
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
        HAS_COARSE=full,
        HAS_GRAD_LSE=grad_lse is not None,
    )
    query_share = key_share = value_share = None
    if full:
        query_share, key_share, value_share = shares(problem, chosen, pulled, pulled_delta)

    launch = backward_launch(problem.options.block_size, _widest(problem), query.dtype)
    pieces = problem.options.block_size // launch.rows
    settings = {
        "ROWS": launch.rows,
        "HAS_COARSE": full,
        "HAS_KEY_MASK": problem.key_padding_mask is not None,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        **sizes,
    }
    key_mask = _bytes(problem.key_padding_mask)
    strides = (*_strides(problem), *grad_out.stride()[:3])
    matrix = chosen.flatten(0, 1)
    rows = list_blocks(matrix, problem.capacity)
    query_kernel[(rows.order.shape[0] * pieces,)](
        query,
        key,
        value,
        key_mask,
        grad_out,
        lse,
        delta,
        query_share,
        rows.order,
        rows.starts,
        rows.entries,
        grads[0],
        problem.scale,
        heads,
        query_length,
        key.shape[2],
        problem.blocks_x,
        problem.capacity,
        *strides,
        KEYS_PER_STEP=launch.step,
        **settings,
    )
    columns = list_blocks(matrix.transpose(1, 2), problem.capacity)
    if not columns.order.numel():
        return
    key_value_kernel[(columns.order.shape[0] * pieces,)](
        query,
        key,
        value,
        key_mask,
        grad_out,
        lse,
        delta,
        key_share,
        value_share,
        columns.order,
        columns.starts,
        columns.entries,
        grads[1],
        grads[2],
        problem.scale,
        heads,
        query_length,
        key.shape[2],
        problem.blocks_y,
        problem.capacity,
        *strides,
        QUERIES_PER_STEP=launch.step,
        **settings,
    )


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
) -> Problem:
    """Kernels take any strides but that of channels, and masks of bytes in rows."""
    query, key, value = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value))
    if key_padding_mask is not None:
        key_padding_mask = key_padding_mask.contiguous()
    if query_padding_mask is not None:
        query_padding_mask = query_padding_mask.contiguous()
    return Problem(query, key, value, key_padding_mask, query_padding_mask, options, scale)


def _empty_results(
    query: Tensor, key: Tensor, value: Tensor, block_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, heads, length, _ = query.shape
    blocks_x = block_count(length, block_size)
    blocks_y = block_count(key.shape[-2], block_size)
    return (
        query.new_empty(batch, heads, length, value.shape[-1]),
        query.new_empty(batch, heads, length, dtype=torch.float32),
        query.new_empty(batch, heads, blocks_x, blocks_y, dtype=torch.bool),
        query.new_empty(batch, heads, blocks_x, dtype=torch.float32),
    )


def _empty_gradients(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        query.new_empty(query.shape),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
    )


@contextlib.contextmanager
def _alone_on(x: Tensor) -> Any:
    """Launches on the tensor's device, in the types that are asked for."""
    device = torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(x.device.type, enabled=False):
        yield


def _bytes(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.view(torch.int8)


def _strides(problem: Problem) -> tuple[int, ...]:
    return (
        *problem.query.stride()[:3],
        *problem.key.stride()[:3],
        *problem.value.stride()[:3],
    )


def _padded(channels: int) -> int:
    # Matrix products take 16 at least.
    return max(16, int(triton.next_power_of_2(channels)))


def _widest(problem: Problem) -> int:
    return _padded(max(problem.query.shape[-1], problem.value.shape[-1]))


def _sizes(problem: Problem) -> dict[str, Any]:
    channels, value_channels = problem.query.shape[-1], problem.value.shape[-1]
    return {
        "CHANNELS": channels,
        "VALUE_CHANNELS": value_channels,
        "PADDED_CHANNELS": _padded(channels),
        "PADDED_VALUE_CHANNELS": _padded(value_channels),
        "BLOCK_SIZE": problem.options.block_size,
        "PRECISION": "ieee" if problem.query.dtype == torch.float32 else "tf32",
    }
