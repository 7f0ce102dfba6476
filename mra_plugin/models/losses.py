"""What each head is trained with. All losses are taken in float32 (float64 for float64)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Label of a token that does not count.
IGNORED = -100


def token_loss(logits: Tensor, labels: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Cross-entropy of every token whose label is not -100.

    Args:
        logits: [B, N, classes].
        labels: int [B, N].
        attention_mask: [B, N]; tokens where it is 0 do not count either.

    Returns:
        The mean, a scalar; nan if no token counts.
    """
    if attention_mask is not None:
        labels = labels.masked_fill(~attention_mask.bool(), IGNORED)
    return functional.cross_entropy(
        _precise(logits).flatten(0, 1), labels.flatten().long(), ignore_index=IGNORED
    )


def choice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy: logits [B, classes] and labels int [B] to a scalar."""
    return functional.cross_entropy(_precise(logits), labels.view(-1).long())


def sequence_loss(logits: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Loss of a whole sequence's labels.

    Args:
        logits: [B, labels].
        labels: a class per sequence, int [B]; or a number per sequence [B] or per label
            [B, labels]; or whether each label applies, [B, labels].
        problem_type: ``"regression"`` (mean squared error), ``"single_label_classification"``
            (cross-entropy) or ``"multi_label_classification"`` (binary cross-entropy). None: the
            first for one label, else the second for integer labels, else the third.

    Returns:
        The mean, a scalar.

    Raises:
        ValueError: ``problem_type`` is unknown, or the labels' shape does not fit it.
    """
    if problem_type is None:
        if logits.shape[-1] == 1:
            problem_type = "regression"
        elif labels.is_floating_point():
            problem_type = "multi_label_classification"
        else:
            problem_type = "single_label_classification"
    if problem_type == "single_label_classification":
        return choice_loss(logits, labels)
    logits = _precise(logits)
    if labels.numel() != logits.numel():
        raise ValueError(
            f"labels must have shape {tuple(logits.shape)} for problem_type={problem_type!r}, "
            f"got {tuple(labels.shape)}"
        )
    labels = labels.reshape(logits.shape).to(logits.dtype)
    if problem_type == "regression":
        return functional.mse_loss(logits, labels)
    if problem_type == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, labels)
    raise ValueError(
        'problem_type must be "regression", "single_label_classification" or '
        f'"multi_label_classification", got {problem_type!r}'
    )


def span_loss(
    start_logits: Tensor, end_logits: Tensor, start_positions: Tensor, end_positions: Tensor
) -> Tensor:
    """Mean cross-entropy of where spans start and end.

    Args:
        start_logits: [B, N].
        end_logits: [B, N].
        start_positions: int [B] or [B, 1]. Clamped to 0 and N; N and beyond do not count.
        end_positions: likewise.

    Returns:
        A scalar; nan if no position counts.
    """
    length = start_logits.shape[1]
    losses = [
        functional.cross_entropy(
            _precise(logits), positions.view(-1).clamp(0, length).long(), ignore_index=length
        )
        for logits, positions in ((start_logits, start_positions), (end_logits, end_positions))
    ]
    return (losses[0] + losses[1]) / 2


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
