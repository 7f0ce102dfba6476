"""How well vectors find documents. Query number i should find document number i."""

from __future__ import annotations

import torch
from torch import Tensor

# Of so many documents in front, how many are those that exact attention puts there.
NEAREST = 10


def similarities(queries: Tensor, documents: Tensor) -> Tensor:
    """Cosines, [Q, D], of vectors that are normalised, [Q, C] and [D, C]."""
    return queries.double() @ documents.double().T


def ranks(found: Tensor) -> Tensor:
    """The place of each query's document, from 1.

    What is as similar as the right document, or not a number, counts as in front of it.

    Args:
        found: similarities, [Q, D] with Q at most D.
    """
    own = found.diagonal()[:, None]
    behind = (found < own).sum(-1)
    return found.shape[1] - behind


def mean_reciprocal_rank(found: Tensor) -> float:
    """MRR: 1 if every query finds its document first."""
    return (1 / ranks(found).double()).mean().item()


def first_hits(found: Tensor) -> int:
    """How many queries find their document first."""
    return int((ranks(found) == 1).sum())


def overlap(exact: Tensor, other: Tensor) -> float:
    """Share of the ten nearest documents that are among exact attention's ten, mean over queries.

    Args:
        exact: similarities with exact attention, [Q, D].
        other: with another.
    """
    nearest = min(NEAREST, exact.shape[1])
    marks = []
    for found in (exact, other):
        best = found.nan_to_num(-2).topk(nearest, -1).indices
        marks.append(torch.zeros_like(found, dtype=torch.bool).scatter(-1, best, True))
    return ((marks[0] & marks[1]).sum(-1) / nearest).mean().item()
