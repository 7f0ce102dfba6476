"""Sums and series over the powers of decays, from two small tables.

An exponent is written j = a c + b, so that q^j = q^(ac) q^b: tables over a and b with some √L
entries each do for L exponents, and what is made of them is a product of matrices.

Shapes: B batch, D rows of decays, N averages, L exponents.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SHORTEST, _LONGEST = 16, 256


def powers(q: Tensor, count: int) -> Tensor:
    """q^0, q^1, ... of q [D, N]: [count, D, N].

    Doubled up: q^1 to q^m times q^m. Those q^m are squared in float64 where there is one, since
    in float32 each squaring would double the error of the one before.
    """
    square = q if q.device.type == "mps" else q.double()
    out = q.new_empty(count, *q.shape)
    out[:1] = 1
    done = 1
    while done < count:
        more = min(done, count - done)
        torch.mul(out[:more], square.to(q.dtype), out=out[done : done + more])
        square = square * square
        done += more
    return out


def slopes(table: Tensor) -> Tensor:
    """Derivatives j q^(j-1) of powers [count, ...] by q."""
    exponents = torch.arange(1, len(table), dtype=table.dtype, device=table.device)
    out = torch.empty_like(table)
    out[:1] = 0
    torch.mul(table[:-1], exponents.view(-1, *(1,) * (table.dim() - 1)), out=out[1:])
    return out


def _tables(q: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Powers of b [c, D, N], those of a [A, D, N] and their derivatives by q [A, D, N]."""
    small = _SHORTEST
    while small < _LONGEST and small * small < length:
        small *= 2
    few = powers(q, small)
    # q^c by squaring, as c is a power of two.
    base = q if q.device.type == "mps" else q.double()
    slope = small * base ** (small - 1)
    base = base**small
    many = powers(base, -(-length // small))
    many_slopes = (slopes(many) * slope).to(q.dtype)
    return few, many.to(q.dtype), many_slopes


def series(weight: Tensor, q: Tensor, length: int) -> Tensor:
    """Σ_n weight q^j for j below ``length``.

    Args:
        weight: [B, D, N].
        q: [D, N].
        length: L.

    Returns:
        [B, D, L].
    """
    few, many, _ = _tables(q, length)
    batch, rows, averages = weight.shape
    first = torch.empty(rows, batch, len(many), averages, dtype=q.dtype, device=q.device)
    torch.mul(weight.transpose(0, 1)[:, :, None], many.transpose(0, 1)[:, None], out=first)
    out = torch.bmm(first.view(rows, -1, averages), few.permute(1, 2, 0))  # [D, B A, c]
    return out.view(rows, batch, -1)[..., :length].transpose(0, 1)


def sums(x: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_j x_j q^j and its derivative by q, of x [B, D, L] and q [D, N]: both [B, D, N]."""
    few, many, many_slopes = _tables(q, x.shape[-1])
    batch, rows, length = x.shape
    width, count = len(few), len(many)
    padded = torch.nn.functional.pad(x, (0, count * width - length))
    cut = padded.transpose(0, 1).reshape(rows, -1, width)  # [D, B A, c]
    # [D, B, A, N] each
    value, slope = (
        torch.bmm(cut, table.transpose(0, 1)).view(rows, batch, count, -1)
        for table in (few, slopes(few))
    )
    many, many_slopes = many.transpose(0, 1)[:, None], many_slopes.transpose(0, 1)[:, None]
    by_q = (value * many_slopes + slope * many).sum(2)
    return (value * many).sum(2).transpose(0, 1), by_q.transpose(0, 1)
