"""The approximations whose closeness is measured, each with a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import arithmetic
from block_choices import oracle_attention, window_attention
from torch import Tensor

from mra_plugin.ops import MRAOptions, preset_options
from mra_plugin.registry import build_attention

BLOCK_SIZE = 32
# Exact keys of a row in such blocks; the budget in blocks of another size is that of as many keys.
BLOCKS_PER_ROW = (1, 2, 4, 8, 16, 32, 64)
FEW_PER_ROW = (2, 8, 32)
LANDMARKS = (8, 16, 32, 64, 128, 256, 512)

_PAPER = {**preset_options("paper"), "block_size": BLOCK_SIZE}
# Without leaving short sequences exact, which would leave nothing to measure.
_CLOSE = {**preset_options("close"), "exact_up_to": 0}
# What the preset "close" adds to the paper's scheme, each by itself.
_ADDED = {
    "mra finer cells": "coarse_key_size",
    "mra salient keys": "salient_keys",
    "mra by mass": "block_score",
    "mra smaller blocks": "block_size",
}
# Options of MRA attention, but for the budget.
_OF_MRA: dict[str, dict[str, Any]] = {
    "mra": _PAPER,
    "mra sparse": {**_PAPER, "approx_mode": "sparse"},
    "mra per_row": {**_PAPER, "selection": "per_row"},
    **{label: {**_PAPER, option: _CLOSE[option]} for label, option in _ADDED.items()},
    "mra close": _CLOSE,
}
_ORACLES = {"oracle": _PAPER, "oracle close": _CLOSE}
METHODS = (*_OF_MRA, "nystrom", "window", *_ORACLES)


@dataclass(frozen=True)
class Approximation:
    """A method with a budget, at a length.

    Attributes:
        method: what results call it.
        budget: blocks per row, or landmarks.
        budget_unit: which of the two, with the size of the blocks where that is not 32.
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
    size = _block_size(method)
    per_rows = FEW_PER_ROW if method == "oracle close" else BLOCKS_PER_ROW  # it takes long
    found = {per_row * BLOCK_SIZE // size for per_row in per_rows}
    if method in ("mra close", "oracle close"):
        found.add(_CLOSE["block_per_row"])
    return sorted(per_row for per_row in found if per_row * size < tokens)


def quick_budgets(method: str, tokens: int) -> list[int]:
    """Few of them: enough for a line."""
    if method == "nystrom":
        few: set[int] = {16, 64, 256}
    elif method == "oracle close":
        few = {_CLOSE["block_per_row"]}
    else:
        few = {per_row * BLOCK_SIZE // _block_size(method) for per_row in FEW_PER_ROW}
        few |= {_CLOSE["block_per_row"]} if method == "mra close" else set()
    return [one for one in budgets(method, tokens) if one in few]


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
    size = _block_size(method)
    unit = "blocks per row" if size == BLOCK_SIZE else f"blocks of {size} per row"
    params: dict[str, Any] = {"block_size": size, "block_per_row": budget}
    if method == "window":
        density = cost = budget * size / tokens
        attend: Callable[..., Tensor] = partial(window_attention, **params)
    else:
        params = (_OF_MRA | _ORACLES)[method] | params
        options = MRAOptions(**params)
        density = min(1.0, (budget * size + options.salient_keys) / tokens)
        # The oracle's search is not counted: its cost is that of MRA attention with its budget.
        cost = arithmetic.mra(tokens, channels, options)
        if method in _ORACLES:
            attend = partial(oracle_attention, **params)
        else:
            attend = build_attention("mra", **params)
    return Approximation(method, budget, unit, params, density, cost, attend)


def _block_size(method: str) -> int:
    size: int = (_OF_MRA | _ORACLES).get(method, _PAPER)["block_size"]
    return size


def _nystrom(tokens: int, channels: int, landmarks: int) -> Approximation:
    attention = build_attention("nystrom", num_landmarks=landmarks)
    params = {"num_landmarks": landmarks, "pinv_iterations": attention.pinv_iterations}
    cost = arithmetic.nystrom(tokens, channels, landmarks, attention.pinv_iterations)
    return Approximation("nystrom", landmarks, "landmarks", params, None, cost, attention)
