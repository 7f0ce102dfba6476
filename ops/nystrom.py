"""Nyström attention: softmax attention by way of a few landmarks.

Nyströmformer (arXiv 2102.03902), with landmarks that are means of real tokens alone. Cost and
memory grow linearly with length.

Shapes: B batch, H heads, N tokens, M landmarks, A a batch axis of B, or of 1 without a mask.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from .blocks import accumulation_dtype
from .checks import (
    check_integer,
    check_masks,
    check_scale,
    check_tensors,
    follow_autocast,
    outside_autocast,
)

PinvStart = Literal["sequence", "head"]


def nystrom_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    query_padding_mask: Tensor | None = None,
    *,
    num_landmarks: int = 64,
    pinv_iterations: int = 6,
    pinv_start: PinvStart = "sequence",
    scale: float | None = None,
) -> Tensor:
    """Bidirectional attention through landmarks, for which tokens of a segment are averaged.

    Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention (arXiv 2102.03902),
    without its convolution: softmax(Q K̃ᵀ) softmax(Q̃ K̃ᵀ)⁺ softmax(Q̃ Kᵀ) V with landmarks Q̃ and K̃.

    Each sequence's real tokens are cut into ``num_landmarks`` segments of their own, as equal as
    can be, so neither padding nor the rest of the batch changes a result. A sequence with no more
    real keys than landmarks gets exact attention. Under autocast the inputs are cast to its type
    first; float16 and bfloat16 are computed in float32.

    Args:
        query: [B, H, Nq, D], float16, bfloat16, float32 or float64.
        key: [B, H, Nk, D], of the query's type and device.
        value: [B, H, Nk, Dv], likewise.
        key_padding_mask: bool [B, Nk], True = a real token. None: all are real.
        query_padding_mask: bool [B, Nq], True = a query to serve. None: all are served; where
            Nq = Nk, those that the key mask calls padding have no part in the landmarks.
        num_landmarks: M, segments per sequence; more is closer and slower.
        pinv_iterations: steps of the iterative pseudo-inverse of the M x M matrix.
        pinv_start: what the iteration starts from, the transpose over the greatest norm among all
            heads of a ``"sequence"``, or of each ``"head"`` by itself, which converges faster.
        scale: factor of the scores, 1/sqrt(D) by default.

    Returns:
        [B, H, Nq, Dv] in the inputs' type; 0 where the query mask says padding, and for a
        sequence without a real key.

    Raises:
        TypeError: an argument is of the wrong type, or tensors differ in dtype.
        ValueError: a shape, size or device does not fit; the message names the argument.
    """
    check_nystrom_options(num_landmarks, pinv_iterations, pinv_start)
    query, key, value = follow_autocast(query, key, value)
    check_tensors(query=query, key=key, value=value)
    check_masks(query, key, key_padding_mask, query_padding_mask)
    real_queries = _real_queries(query, key, key_padding_mask, query_padding_mask)
    scale = check_scale(scale, query.shape[-1])
    dtype = query.dtype
    with outside_autocast(query):
        query, key, value = (
            _prepare(query, query_padding_mask),
            _prepare(key, key_padding_mask),
            _prepare(value, key_padding_mask),
        )
        keys = _open(key_padding_mask)
        if key.shape[-2] <= num_landmarks:
            out = scaled_dot_product_attention(query, key, value, attn_mask=keys, scale=scale)
        else:
            marks = _landmarks(
                _prepare(query, real_queries),
                key,
                key_padding_mask,
                real_queries,
                num_landmarks,
                pinv_iterations,
                pinv_start,
                scale,
            )
            seen = scaled_dot_product_attention(
                marks.query, key, value, attn_mask=keys, scale=scale
            )
            summary = torch.matmul(marks.inverse, seen)  # [B, H, M, Dv]
            if marks.few is not None:
                # With a landmark for each token, the first factor alone is exact attention.
                summary = torch.where(marks.few, _means(value, marks.key_segments), summary)
            out = scaled_dot_product_attention(
                query, marks.key, summary, attn_mask=marks.open, scale=scale
            )
        return _without_padding(out, key_padding_mask, query_padding_mask).to(dtype)


def nystrom_attention_weights(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None = None,
    query_padding_mask: Tensor | None = None,
    *,
    num_landmarks: int = 64,
    pinv_iterations: int = 6,
    pinv_start: PinvStart = "sequence",
    scale: float | None = None,
) -> Tensor:
    """The dense matrix that ``nystrom_attention`` stands for, to look at.

    ``nystrom_attention(query, key, value, ...)`` equals this matrix times ``value``. Its memory is
    quadratic in length. Arguments and errors are those of ``nystrom_attention``.

    Returns:
        [B, H, Nq, Nk] in the query's type; 0 at padded keys and in padded queries' rows. Rows sum
        to about 1, and entries may be a little below 0: the approximation is no softmax.
    """
    check_nystrom_options(num_landmarks, pinv_iterations, pinv_start)
    query, key = follow_autocast(query, key)
    check_tensors(query=query, key=key)
    check_masks(query, key, key_padding_mask, query_padding_mask)
    real_queries = _real_queries(query, key, key_padding_mask, query_padding_mask)
    scale = check_scale(scale, query.shape[-1])
    dtype = query.dtype
    with outside_autocast(query):
        query, key = _prepare(query, query_padding_mask), _prepare(key, key_padding_mask)
        keys = _open(key_padding_mask)
        weights = _softmax(query, key, keys, scale)
        if key.shape[-2] > num_landmarks:
            marks = _landmarks(
                _prepare(query, real_queries),
                key,
                key_padding_mask,
                real_queries,
                num_landmarks,
                pinv_iterations,
                pinv_start,
                scale,
            )
            first = _softmax(query, marks.key, marks.open, scale)
            last = _softmax(marks.query, key, keys, scale)
            approximate = torch.matmul(torch.matmul(first, marks.inverse), last)
            if marks.few is not None:
                approximate = torch.where(marks.few, weights, approximate)
            weights = approximate
        return _without_padding(weights, key_padding_mask, query_padding_mask).to(dtype)


def check_nystrom_options(
    num_landmarks: int, pinv_iterations: int, pinv_start: PinvStart = "sequence"
) -> None:
    """Raises TypeError or ValueError, with its name, for an option that is out of range."""
    check_integer("num_landmarks", num_landmarks, least=1)
    check_integer("pinv_iterations", pinv_iterations, least=1)
    if pinv_start not in ("sequence", "head"):
        raise ValueError(f'pinv_start must be "sequence" or "head", got {pinv_start!r}')


class _Landmarks(NamedTuple):
    """What stands between queries and keys.

    Attributes:
        query: [B, H, M, D].
        key: [B, H, M, D].
        key_segments: which keys each of ``key`` averages, [A, M, Nk].
        inverse: pseudo-inverse of the softmax of ``query`` and ``key``, [B, H, M, M].
        open: which of ``key`` may be seen, bool [B, 1, 1, M]; None: all.
        few: sequences with no more real keys than landmarks, bool [B, 1, 1, 1]; None: there are
            none.
    """

    query: Tensor
    key: Tensor
    key_segments: Tensor
    inverse: Tensor
    open: Tensor | None
    few: Tensor | None


def _landmarks(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    count: int,
    iterations: int,
    start: PinvStart,
    scale: float,
) -> _Landmarks:
    query_segments = _segments(query, query_padding_mask, count)
    key_segments = _segments(key, key_padding_mask, count)
    query_means, key_means = _means(query, query_segments), _means(key, key_segments)
    seen = few = None
    if key_padding_mask is not None:
        seen = _open(key_segments.any(-1))
        few = (key_padding_mask.sum(-1) <= count)[:, None, None, None]
    middle = _softmax(query_means, key_means, seen, scale)
    # Empty segments of queries are rows of zeros, which the pseudo-inverse leaves out.
    middle = middle.masked_fill(~query_segments.any(-1)[:, None, :, None], 0)
    inverse = _pseudo_inverse(middle, iterations, start)
    return _Landmarks(query_means, key_means, key_segments, inverse, seen, few)


def _real_queries(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
) -> Tensor | None:
    """Bool [B, Nq], the queries that landmarks are made of; None: all."""
    if query_padding_mask is None and query.shape[-2] == key.shape[-2]:
        return key_padding_mask
    return query_padding_mask


def _prepare(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """In the accumulation type, with zeros in place of whatever stands at padded positions."""
    x = x.to(accumulation_dtype(x.dtype))
    return x if padding_mask is None else x.masked_fill(~padding_mask[:, None, :, None], 0)


def _segments(x: Tensor, padding_mask: Tensor | None, count: int) -> Tensor:
    """Which tokens each landmark averages, and with which weight.

    The r-th of n real tokens belongs to segment r·M // max(n, M): segments of equal size, to one
    token, where n ≥ M, and otherwise a segment for each token and the last ones empty.

    Returns:
        [A, M, N]; rows sum to 1, or are 0 for an empty segment.
    """
    length = x.shape[-2]
    if padding_mask is None:
        padding_mask = torch.ones(1, length, dtype=torch.bool, device=x.device)
    rank = padding_mask.cumsum(-1) - 1  # [A, N]
    real = padding_mask.sum(-1, keepdim=True)  # [A, 1]
    segment = rank * count // real.clamp(min=count)
    numbers = torch.arange(count, device=x.device)[:, None]
    member = (segment[:, None, :] == numbers) & padding_mask[:, None, :]
    return member / member.sum(-1, keepdim=True).clamp(min=1).to(x.dtype)


def _means(x: Tensor, segments: Tensor) -> Tensor:
    """Landmarks [B, H, M, D] of x [B, H, N, D], 0 for empty segments."""
    if segments.shape[0] != x.shape[0]:
        segments = segments.expand(x.shape[0], -1, -1)
    return torch.einsum("bmn,bhnd->bhmd", segments, x)


def _open(mask: Tensor | None) -> Tensor | None:
    """Bool [B, 1, 1, N], True at what may be seen; everything, if nothing may.

    A softmax over nothing is NaN in some kernels; what comes of it is set to 0 at the end.
    """
    if mask is None:
        return None
    return (mask | ~mask.any(-1, keepdim=True))[:, None, None, :]


def _softmax(query: Tensor, key: Tensor, open_keys: Tensor | None, scale: float) -> Tensor:
    """Softmax matrix [B, H, Nq, Nk]."""
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if open_keys is not None:
        scores = scores.masked_fill(~open_keys, float("-inf"))
    return scores.softmax(-1)


def _pseudo_inverse(middle: Tensor, iterations: int, start: PinvStart) -> Tensor:
    """Pseudo-inverse of the landmarks' matrix [B, H, M, M], by iteration (paper, section 3.3).

    The start is the transpose over the greatest norm among the heads of a sequence, where the
    original takes the greatest of the whole batch and so lets sequences change each other; or over
    each head's own norm. Each step makes rounding errors 13/4 times as large where the matrix is
    singular, so one that has grown beyond 1/sqrt(eps) is not taken.
    """
    # Rows sum to 1 at most, so the greatest sum of a column is what bounds the spectral norm.
    columns = middle.sum(-2).amax(-1)[:, :, None, None]  # [B, H, 1, 1]
    if start == "sequence":
        columns = columns.amax(1, keepdim=True)
    inverse = middle.transpose(-1, -2) / columns.masked_fill(columns == 0, 1)
    identity = torch.eye(middle.shape[-1], dtype=middle.dtype, device=middle.device)
    eps = torch.finfo(middle.dtype).eps
    for _ in range(iterations):
        product = torch.matmul(middle, inverse)
        inner = 15 * identity - torch.matmul(product, 7 * identity - product)
        step = 0.25 * torch.matmul(inverse, 13 * identity - torch.matmul(product, inner))
        size = step.detach().square().sum((-2, -1), keepdim=True)
        inverse = torch.where(size * eps <= 1, step, inverse)
    return inverse


def _without_padding(
    out: Tensor, key_padding_mask: Tensor | None, query_padding_mask: Tensor | None
) -> Tensor:
    """Zeros at padded queries and in sequences without a real key."""
    if key_padding_mask is not None:
        out = out.masked_fill(~key_padding_mask.any(-1)[:, None, None, None], 0)
    if query_padding_mask is not None:
        out = out.masked_fill(~query_padding_mask[:, None, :, None], 0)
    return out
