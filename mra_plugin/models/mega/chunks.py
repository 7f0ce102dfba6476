"""Sequences cut into chunks that don't see each other.

Chunks count from the first real token of a sequence, so that padding in front changes nothing. The
last may be shorter than the others; nothing is filled up.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .attention import Inputs

Attend = Callable[[Inputs], tuple[Tensor, Tensor | None]]


def chunked_attention(
    inputs: Inputs, size: int | None, attend: Attend
) -> tuple[Tensor, Tensor | None]:
    """Attends inside of chunks.

    Args:
        inputs: of L tokens.
        size: tokens of a chunk; None: the sequence is one.
        attend: attends to chunks of one length, as rows of a batch.

    Returns:
        [B, L, E], and the matrices that ``attend`` gave, [B, chunks, C, C], or None. C is
        ``size``, or L for a single chunk; the last chunk's matrix is filled up with zeros.
    """
    batch, length = inputs.query.shape[:2]
    if size is None or length <= size:
        out, weights = attend(inputs)
        return out, None if weights is None else weights[:, None]
    shift = None
    if inputs.padding is not None:
        shift = leading_padding(inputs.padding)
        inputs = Inputs(*(rolled(x, shift) for x in inputs if x is not None))
    whole = length - length % size
    pieces = [(0, whole, size), *([(whole, length, length - whole)] if whole < length else [])]
    outs, matrices = [], []
    for start, end, tokens in pieces:
        out, weights = attend(inputs.cut(start, end, tokens))
        outs.append(out.reshape(batch, end - start, -1))
        if weights is not None:
            missing = size - tokens
            filled = functional.pad(weights, (0, missing, 0, missing))
            matrices.append(filled.reshape(batch, -1, size, size))
    together = torch.cat(outs, 1) if len(outs) > 1 else outs[0]
    if shift is not None:
        together = rolled(together, -shift)
    return together, torch.cat(matrices, 1) if matrices else None


def leading_padding(padding: Tensor) -> Tensor:
    """How many tokens of padding stand in front of each row: bool [B, L] to int [B]."""
    return (padding.cumsum(-1) == 0).sum(-1)


def rolled(x: Tensor, shift: Tensor) -> Tensor:
    """Each row of [B, L, ...] turned to the left by its own number [B]."""
    length = x.shape[1]
    index = (torch.arange(length, device=x.device) + shift[:, None]) % length
    if x.ndim == 2:
        return x.gather(1, index)
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
