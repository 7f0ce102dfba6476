"""The approximations whose closeness is measured, each with a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import arithmetic
from block_choices import oracle_attention, window_attention
from torch import Tensor

from mra_plugin.registry import build_attention

BLOCK_SIZE = 32
BLOCKS_PER_ROW = (1, 2, 4, 8, 16, 32, 64)
LANDMARKS = (8, 16, 32, 64, 128, 256, 512)

_OF_MRA: dict[str, dict[str, Any]] = {
    "mra": {},
    "mra sparse": {"approx_mode": "sparse"},
    "mra per_row": {"selection": "per_row"},
}
_CHOSEN_OTHERWISE: dict[str, Callable[..., Tensor]] = {
    "window": window_attention,
    "oracle": oracle_attention,
}


@dataclass(frozen=True)
class Approximation:
    """A method with a budget, at a length.

    Attributes:
        method: what results call it.
        budget: blocks per row, or landmarks.
        budget_unit: which of the two.
        params: what it is built with.
        density: share of query-key pairs that are exact; None where there are no such pairs.
        relative_cost: multiply-adds, relative to exact attention's.
        attend: takes query, key and value, and ``scale`` by keyword.
    """

    method: str
    budget: int
    budget_unit: str
    params: dict[str, Any]
    density: float | None
    relative_cost: float
    attend: Callable[..., Tensor]


def budgets(method: str, tokens: int) -> list[int]:
    """The budgets that approximate: with all blocks, or a landmark for each token, all is exact."""
    if method == "nystrom":
        return [landmarks for landmarks in LANDMARKS if landmarks < tokens]
    return [per_row for per_row in BLOCKS_PER_ROW if per_row < tokens // BLOCK_SIZE]


METHODS = (*_OF_MRA, "nystrom", *_CHOSEN_OTHERWISE)


def approximation(method: str, tokens: int, channels: int, budget: int) -> Approximation:
    """Builds one.

    Args:
        method: one of `METHODS`.
        tokens: N, a multiple of the block size.
        channels: D of each head.
        budget: one of `budgets`.
    """
    if method == "nystrom":
        return _nystrom(tokens, channels, budget)
    params: dict[str, Any] = {"block_size": BLOCK_SIZE, "block_per_row": budget}
    density = budget * BLOCK_SIZE / tokens
    if method in _OF_MRA:
        params |= _OF_MRA[method]
        attend: Callable[..., Tensor] = build_attention("mra", **params)
    else:
        attend = partial(_CHOSEN_OTHERWISE[method], **params)
    # The oracle's search is not counted: its cost is that of MRA attention with the same budget.
    cost = density
    if method != "window":
        averages = method != "mra sparse"
        cost = arithmetic.mra(tokens, channels, BLOCK_SIZE, budget, averages=averages)
    return Approximation(method, budget, "blocks per row", params, density, cost, attend)


def _nystrom(tokens: int, channels: int, landmarks: int) -> Approximation:
    attention = build_attention("nystrom", num_landmarks=landmarks)
    params = {"num_landmarks": landmarks, "pinv_iterations": attention.pinv_iterations}
    cost = arithmetic.nystrom(tokens, channels, landmarks, attention.pinv_iterations)
    return Approximation("nystrom", landmarks, "landmarks", params, None, cost, attention)
