"""Cross-entropy that doesn't depend on how a batch is shared out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

# Label of what has none.
IGNORED = -100


def labelled_loss(
    outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Cross-entropy of everything that has a label.

    Args:
        outputs: with ``logits`` [..., classes].
        labels: int64 [...], `IGNORED` where there is none.
        num_items_in_batch: labels of the whole optimizer step, in all processes; None means those
            of ``labels``.

    Returns:
        The sum over the labels here, divided by ``num_items_in_batch``; a scalar.
    """
    return loss_of_logits(outputs.logits, labels, num_items_in_batch)


def loss_of_logits(
    logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None
) -> Tensor:
    """`labelled_loss` of the logits themselves, [..., classes]."""
    known = labels != IGNORED
    total = cross_entropy(logits[known].float(), labels[known], reduction="sum")
    count = known.sum() if num_items_in_batch is None else num_items_in_batch
    return total / torch.as_tensor(count, device=total.device).clamp(min=1)
