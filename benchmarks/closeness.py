"""How far an attention's output is from the exact one."""

from __future__ import annotations

import torch
from torch import Tensor


def closeness(exact: Tensor, other: Tensor) -> tuple[float, float]:
    """Relative error and cosine.

    Args:
        exact: output of exact attention, [B, H, N, D].
        other: output of another attention, likewise.

    Returns:
        (Frobenius norm of the difference over that of the exact output, mean over tokens of the
        cosine), each the mean over heads.
    """
    exact, other = exact.float(), other.float()
    norms = [x.flatten(2).norm(dim=-1) for x in (other - exact, exact)]
    cosines = torch.cosine_similarity(exact, other, dim=-1)
    return (norms[0] / norms[1]).mean().item(), cosines.mean().item()
