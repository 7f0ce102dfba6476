"""Which grid a transformer's tokens stand in, read from its own call, never from their number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mra_plugin.ops.token_order import grid_coordinates

from .layouts import Layout


def coordinates_in(
    transformer: nn.Module, given: dict[str, Any], layout: Layout, grid: tuple[int, ...] | None
) -> Tensor:
    """Where the tokens of a call stand.

    Args:
        transformer: that is called.
        given: its arguments by name.
        layout: of its tokens.
        grid: its sides, if they are known already.

    Returns:
        Coordinates [tokens, axes].

    Raises:
        ValueError: the call does not say it.
    """
    states = given.get("hidden_states")
    device = states.device if isinstance(states, Tensor) else None
    if grid is None and isinstance(states, Tensor) and states.ndim in (4, 5):
        grid = _patched(states, transformer, layout)
    if grid is None and all(isinstance(given.get(name), int) for name in _SIDES):
        grid = tuple(given[name] for name in _SIDES)
    if grid is not None:
        return grid_coordinates(grid, device)
    if isinstance(ids := given.get("img_ids"), Tensor):
        # [tokens, axes]; in older pipelines for each of the batch, and the same for all.
        return ids[0] if ids.ndim == 3 else ids
    if (shapes := given.get("img_shapes")) is not None:
        return _of_pictures(_of_first_sample(shapes), device)
    raise ValueError(
        f"{type(transformer).__name__} was called without what tells the grid of its tokens "
        "(hidden_states with height and width, num_frames, height and width, img_ids, or "
        "img_shapes); give patch its sides as grid=(height, width) or (frames, height, width), or "
        "token_order=None for blocks of the row as it is"
    )


_SIDES = ("num_frames", "height", "width")


def _patched(states: Tensor, transformer: nn.Module, layout: Layout) -> tuple[int, ...]:
    """The grid of patches that latents are cut into."""
    config: Any = transformer.config
    size = config.patch_size
    *frames, height, width = (1, size, size) if isinstance(size, int) else size
    sides = (states.shape[-2] // height, states.shape[-1] // width)
    if states.ndim == 4:
        return sides
    together = getattr(config, "patch_size_t", None) or (frames[0] if frames else 1)
    return (states.shape[1 if layout.frames_first else 2] // together, *sides)


def _of_first_sample(shapes: Any) -> tuple[tuple[int, ...], ...]:
    """The sides of each picture in a row; all samples of a batch have the same."""
    first = shapes[0]
    if isinstance(first[0], int):
        return (tuple(first),)
    return tuple(tuple(sides) for sides in first)


def _of_pictures(pictures: tuple[tuple[int, ...], ...], device: torch.device | None) -> Tensor:
    """Coordinates [tokens, 1 + axes] of pictures behind each other, their number in front."""
    parts = [grid_coordinates(sides, device) for sides in pictures]
    numbered = [nn.functional.pad(part, (1, 0), value=at) for at, part in enumerate(parts)]
    return torch.cat(numbered)
