"""The public face of MRA attention: checks what it is given, then hands it to an implementation."""

from __future__ import annotations

import math
from typing import Literal, overload

import torch
from torch import Tensor

from . import eager, reference
from .options import ApproxMode, MRAOptions, Selection

Implementation = Literal["auto", "reference", "eager"]


@overload
def mra_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = ...,
    query_padding_mask: Tensor | None = ...,
    *,
    block_size: int = ...,
    block_per_row: int = ...,
    num_blocks: int | None = ...,
    approx_mode: ApproxMode = ...,
    initial_prior_first_n_blocks: int = ...,
    initial_prior_diagonal_n_blocks: int = ...,
    selection: Selection = ...,
    scale: float | None = ...,
    return_lse: Literal[False] = ...,
    impl: Implementation = ...,
) -> Tensor: ...


@overload
def mra_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = ...,
    query_padding_mask: Tensor | None = ...,
    *,
    block_size: int = ...,
    block_per_row: int = ...,
    num_blocks: int | None = ...,
    approx_mode: ApproxMode = ...,
    initial_prior_first_n_blocks: int = ...,
    initial_prior_diagonal_n_blocks: int = ...,
    selection: Selection = ...,
    scale: float | None = ...,
    return_lse: Literal[True],
    impl: Implementation = ...,
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
    scale: float | None = None,
    return_lse: bool = False,
    impl: Implementation = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Bidirectional attention, exact in the blocks that matter and averaged everywhere else.

    Multi Resolution Analysis for Approximate Self-Attention (arXiv 2207.10284), section 4: MRA-2
    and MRA-2-s. Cost and memory grow about linearly with length.

    Under autocast the inputs are cast to its type first, as PyTorch's own attention does.

    Args:
        query: [B, H, Nq, D], float16, bfloat16, float32 or float64.
        key: [B, H, Nk, D], of the query's type and device.
        value: [B, H, Nk, Dv], likewise.
        key_padding_mask: bool [B, Nk], True = a real token. None: all are real.
        query_padding_mask: bool [B, Nq]. None: the key mask where Nq = Nk, else all are real.
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
        scale: factor of the scores, 1/sqrt(D) by default.
        return_lse: also return each query's log-sum-exp.
        impl: ``"reference"`` (dense, quadratic memory, the oracle), ``"eager"`` (PyTorch, any
            device), or ``"auto"`` (the fastest that serves the inputs: ``"eager"``).

    Returns:
        Output [B, H, Nq, Dv] in the inputs' type; 0 at padded queries and for a sequence without
        a real key. With ``return_lse`` also the log-sum-exp of the scores, [B, H, Nq] in float32
        (float64 for float64), differentiable, -inf where a query attends to nothing.

    Raises:
        TypeError: an argument is of the wrong type, or tensors differ in dtype.
        ValueError: a shape, size, device or name does not fit; the message names the argument.
    """
    options = MRAOptions(
        block_size=block_size,
        block_per_row=block_per_row,
        num_blocks=num_blocks,
        approx_mode=approx_mode,
        initial_prior_first_n_blocks=initial_prior_first_n_blocks,
        initial_prior_diagonal_n_blocks=initial_prior_diagonal_n_blocks,
        selection=selection,
    )
    if impl not in ("auto", "reference", "eager"):
        raise ValueError(f'impl must be "auto", "reference" or "eager", got {impl!r}')
    _check_tensors(query=query, key=key, value=value)
    query, key, value = _follow_autocast(query, key, value)
    query_padding_mask = _check_masks(query, key, key_padding_mask, query_padding_mask)
    scale = _check_scale(scale, query.shape[-1])

    out: Tensor
    lse: Tensor | None
    with torch.autocast(query.device.type, enabled=False):
        if impl == "reference":
            out, lse = reference.attend(
                query, key, value, key_padding_mask, query_padding_mask, options, scale
            )
        else:
            out, lse = eager.attend(
                query,
                key,
                value,
                key_padding_mask,
                query_padding_mask,
                options,
                scale,
                need_lse=return_lse,
            )
    if not return_lse:
        return out
    assert lse is not None
    return out, lse


def mra_attention_weights(
    query: Tensor,
    key: Tensor,
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
    scale: float | None = None,
) -> Tensor:
    """The dense attention matrix that ``mra_attention`` stands for, to look at.

    ``mra_attention(query, key, value, ...)`` equals this matrix times ``value``. Its memory is
    quadratic in length. Arguments and errors are those of ``mra_attention``.

    Returns:
        [B, H, Nq, Nk] in the query's type; rows of real queries sum to 1 (or are 0 where a query
        attends to nothing), rows of padded ones are 0.
    """
    options = MRAOptions(
        block_size=block_size,
        block_per_row=block_per_row,
        num_blocks=num_blocks,
        approx_mode=approx_mode,
        initial_prior_first_n_blocks=initial_prior_first_n_blocks,
        initial_prior_diagonal_n_blocks=initial_prior_diagonal_n_blocks,
        selection=selection,
    )
    _check_tensors(query=query, key=key)
    query, key = _follow_autocast(query, key)
    query_padding_mask = _check_masks(query, key, key_padding_mask, query_padding_mask)
    scale = _check_scale(scale, query.shape[-1])
    with torch.autocast(query.device.type, enabled=False):
        weights, _ = reference.dense_weights(
            query, key, key_padding_mask, query_padding_mask, options, scale
        )
    return weights.to(query.dtype)


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _check_tensors(**tensors: Tensor) -> None:
    """Checks query, key and, if given, value on their own and against each other."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
        if x.dim() != 4:
            raise ValueError(
                f"{name} must have 4 dimensions [batch, heads, tokens, channels], "
                f"got shape {tuple(x.shape)}"
            )
        if x.dtype not in _FLOATS:
            raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {x.dtype}")
    query, key = tensors["query"], tensors["key"]
    for name, x in tensors.items():
        if x.dtype != query.dtype:
            raise TypeError(f"{name} must have the query's dtype {query.dtype}, got {x.dtype}")
        if x.device != query.device:
            raise ValueError(f"{name} must be on the query's device {query.device}, got {x.device}")
        if x.shape[:2] != query.shape[:2]:
            raise ValueError(
                f"{name} must have the query's batch and heads {tuple(query.shape[:2])}, "
                f"got shape {tuple(x.shape)}"
            )
    if query.shape[-1] == 0 or key.shape[-1] != query.shape[-1]:
        raise ValueError(
            "query and key must have the same positive number of channels, "
            f"got shapes {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if "value" in tensors and tensors["value"].shape[-2] != key.shape[-2]:
        raise ValueError(
            f"value must have the key's length {key.shape[-2]}, "
            f"got shape {tuple(tensors['value'].shape)}"
        )


def _check_masks(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
) -> Tensor | None:
    """Checks both masks; returns the query's, which defaults to the key's where lengths agree."""
    for name, mask, x in (
        ("key_padding_mask", key_padding_mask, key),
        ("query_padding_mask", query_padding_mask, query),
    ):
        if mask is None:
            continue
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"{name} must be a bool tensor, True = a real token, got {kind}")
        if tuple(mask.shape) != (x.shape[0], x.shape[-2]):
            raise ValueError(
                f"{name} must have shape {(x.shape[0], x.shape[-2])} [batch, tokens], "
                f"got {tuple(mask.shape)}"
            )
        if mask.device != x.device:
            raise ValueError(f"{name} must be on the query's device {x.device}, got {mask.device}")
    if query_padding_mask is None and query.shape[-2] == key.shape[-2]:
        return key_padding_mask
    return query_padding_mask


def _check_scale(scale: float | None, channels: int) -> float:
    if scale is None:
        return 1 / math.sqrt(channels)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"scale must be a number, got {scale!r} ({type(scale).__name__})")
    if not math.isfinite(scale) or scale <= 0:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    return float(scale)


def _follow_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What PyTorch's own attention does under autocast: all but float64 in autocast's type."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)
