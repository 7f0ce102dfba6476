"""The public face of MRA attention: checks what it is given, then hands it to an implementation."""

from __future__ import annotations

import warnings
from typing import Literal, Unpack, overload

import torch
from torch import Tensor

from . import exact, reference
from .checks import (
    check_masks,
    check_scale,
    check_tensors,
    follow_autocast,
    outside_autocast,
    refuse_forward_mode,
)
from .implementations import ImplementationName, check_name, select
from .options import ApproxMode, BlockScore, MRAOptions, MRAOptionValues, Selection, lists_options


@overload
def mra_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = ...,
    query_padding_mask: Tensor | None = ...,
    *,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
    impl: ImplementationName = ...,
    **options: Unpack[MRAOptionValues],
) -> Tensor: ...


@overload
def mra_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = ...,
    query_padding_mask: Tensor | None = ...,
    *,
    scale: float | None = ...,
    return_lse: Literal[True],
    impl: ImplementationName = ...,
    **options: Unpack[MRAOptionValues],
) -> tuple[Tensor, Tensor]: ...


def mra_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    query_padding_mask: Tensor | None = None,
    *,
    block_size: int = 32,
    block_per_row: int = 4,
    num_blocks: int | None = None,
    approx_mode: ApproxMode = "full",
    initial_prior_first_n_blocks: int = 0,
    initial_prior_diagonal_n_blocks: int = 0,
    selection: Selection = "global",
    coarse_key_size: int | None = None,
    salient_keys: int = 0,
    block_score: BlockScore = "mean",
    exact_up_to: int = 0,
    scale: float | None = None,
    return_lse: bool = False,
    impl: ImplementationName = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Bidirectional attention, exact in the blocks that matter and averaged everywhere else.

    Multi Resolution Analysis for Approximate Self-Attention (arXiv 2207.10284), section 4: MRA-2
    and MRA-2-s. Cost and memory grow about linearly with length. Finer cells, salient keys and
    choice by mass are this package's additions; the defaults are the paper's.

    Under autocast the inputs are cast to its type first, as PyTorch's own attention does.

    Args:
        query: [B, H, Nq, D], float16, bfloat16, float32 or float64.
        key: [B, H, Nk, D], of the query's type and device.
        value: [B, H, Nk, Dv], likewise.
        key_padding_mask: bool [B, Nk], True = a real token. None: all are real.
        query_padding_mask: bool [B, Nq], True = a query to serve. None: all are served; in
            self-attention (Nq = Nk) those at padding have blocks of their own and the budget of
            ``block_per_row``, and change nothing for the others.
        block_size: tokens per block, a power of two from 8 to 128.
        block_per_row: exact blocks per query block that holds a real token; on average with
            ``selection="global"``, each with ``"per_row"``.
        num_blocks: exact blocks per head and batch row in all; overrides ``block_per_row`` and
            needs ``selection="global"``.
        approx_mode: ``"full"`` (MRA-2) averages the blocks that were not chosen, ``"sparse"``
            (MRA-2-s) drops them.
        initial_prior_first_n_blocks: choose the first n block rows and columns before others.
        initial_prior_diagonal_n_blocks: choose pairs with ``|x - y| <= n // 2`` before others.
        selection: ``"global"``, the best pairs of the whole matrix, or ``"per_row"``.
        coarse_key_size: keys per cell that what was not chosen is averaged over, a power of two up
            to ``block_size``; None is ``block_size``.
        salient_keys: keys that every query of a head sees exactly: those with the greatest share of
            the attention of 64 query blocks' means.
        block_score: ``"mean"`` chooses blocks by the score of their means, ``"mass"`` by the share
            of the row that their cells are estimated to have.
        exact_up_to: a sequence of at most so many real keys gets exact attention.
        scale: factor of the scores, 1/sqrt(D) by default.
        return_lse: also return each query's log-sum-exp.
        impl: ``"reference"`` (dense, quadratic memory, the oracle), ``"eager"`` (PyTorch, any
            device), ``"native"`` (compiled for CPUs, if it was when this package was built),
            ``"triton"`` (kernels for NVIDIA GPUs), or ``"auto"``: ``"triton"`` for CUDA tensors and
            ``"native"`` on a CPU where they serve, otherwise ``"eager"``.

    Returns:
        Output [B, H, Nq, Dv] in the inputs' type; 0 at queries that the query mask calls padding,
        and for a sequence without a real key. With ``return_lse`` also the log-sum-exp of the
        scores, [B, H, Nq] in float32 (float64 for float64), differentiable, -inf where a query
        attends to nothing.

    Raises:
        TypeError: an argument is of the wrong type, or tensors differ in dtype.
        ValueError: a shape, size, device or name does not fit; the message names the argument.
        NotImplementedError: an input has a tangent of forward-mode differentiation, and the
            implementation is not ``"reference"``.
    """
    options = MRAOptions(
        block_size=block_size,
        block_per_row=block_per_row,
        num_blocks=num_blocks,
        approx_mode=approx_mode,
        initial_prior_first_n_blocks=initial_prior_first_n_blocks,
        initial_prior_diagonal_n_blocks=initial_prior_diagonal_n_blocks,
        selection=selection,
        coarse_key_size=coarse_key_size,
        salient_keys=salient_keys,
        block_score=block_score,
        exact_up_to=exact_up_to,
    )
    check_name(impl)
    query, key, value = follow_autocast(query, key, value)
    check_tensors(query=query, key=key, value=value)
    check_masks(query, key, key_padding_mask, query_padding_mask)
    scale = check_scale(scale, query.shape[-1])
    implementation = select(_for_onnx(impl), query, value, options)

    arguments = (query, key, value, key_padding_mask, query_padding_mask)
    with outside_autocast(query):
        # What is recorded is run at other lengths than that of the example, too.
        recorded = _is_recorded()
        exactly = (impl == "auto" or implementation.exact_by_pytorch) and not return_lse
        exactly = exactly and not recorded
        if exactly and exact.covers_everything(query, key, options):
            return exact.attend(*arguments, scale)
        if not implementation.has_forward_mode:
            refuse_forward_mode(implementation.name, query=query, key=key, value=value)
        out, lse = implementation.attend(*arguments, options, scale)
    return (out, lse) if return_lse else out


def _for_onnx(impl: ImplementationName) -> ImplementationName:
    """The implementation that an ONNX file is made of: ONNX has no operators of ours."""
    compiled = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    if compiled or impl == "reference" or not torch.onnx.is_in_onnx_export():
        return impl
    if impl != "auto":
        raise NotImplementedError(
            f"impl={impl!r} can't be exported to ONNX, which has no operators of ours; "
            'impl="reference" can, and "auto" takes it'
        )
    warnings.warn(
        "in ONNX files MRA attention is dense: its memory and time are quadratic in length",
        stacklevel=3,
    )
    return "reference"


def _is_recorded() -> bool:
    """Whether a program is being made of the call that will run without this code."""
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


@lists_options
def mra_attention_weights(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None = None,
    query_padding_mask: Tensor | None = None,
    *,
    scale: float | None = None,
    **options: Unpack[MRAOptionValues],
) -> Tensor:
    """The dense attention matrix that ``mra_attention`` stands for, to look at.

    ``mra_attention(query, key, value, ...)`` equals this matrix times ``value``. Its memory is
    quadratic in length. Arguments, options and errors are those of ``mra_attention``.

    Returns:
        [B, H, Nq, Nk] in the query's type; rows of queries that are served sum to 1 (or are 0 where
        a query attends to nothing), others are 0.
    """
    chosen = MRAOptions.given_to("mra_attention_weights", options)
    query, key = follow_autocast(query, key)
    check_tensors(query=query, key=key)
    check_masks(query, key, key_padding_mask, query_padding_mask)
    scale = check_scale(scale, query.shape[-1])
    select("reference", query, key, chosen)
    with outside_autocast(query):
        weights, _ = reference.dense_weights(
            query, key, key_padding_mask, query_padding_mask, chosen, scale
        )
    return weights.to(query.dtype)
