"""Queries, keys and values of pictures and clips that are smooth, as latents are.

Random numbers have no neighbours that are alike. These have a spectrum that falls with the
frequency, as natural pictures' has, noise beside it, and rotary positions as diffusion transformers
turn them; so what is near is alike, and blocks of neighbours say something.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from mra_plugin.ops.token_order import grid_coordinates

CHANNELS = 32
# How fast amplitudes fall with the frequency, and the noise's deviation beside a picture's of 1.
FALL, NOISE = 1.5, 0.3


def smooth_field(grid: tuple[int, ...], channels: int = CHANNELS) -> Tensor:
    """[tokens, channels] on a grid, of mean 0 and deviation 1, the same each time."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.fft.fftn(
        torch.randn(*grid, channels, generator=generator), dim=tuple(range(len(grid)))
    )
    squares = torch.zeros(grid)
    for axis, side in enumerate(grid):
        along = [1] * len(grid)
        along[axis] = side
        squares = squares + torch.fft.fftfreq(side).square().view(along)
    frequencies = squares.sqrt().clamp(min=1 / max(grid))
    field = torch.fft.ifftn(
        spectrum / frequencies[..., None] ** FALL, dim=tuple(range(len(grid)))
    ).real.flatten(0, -2)
    noise = torch.randn(field.shape, generator=generator)
    return layer_norm(field / field.std() + NOISE * noise, (channels,))


def smooth_inputs(grid: tuple[int, ...], heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value [1, heads, tokens, width]; heads look for what is like themselves."""
    generator = torch.Generator().manual_seed(1)
    field, coordinates = smooth_field(grid), grid_coordinates(grid)

    def projected() -> Tensor:
        weight = torch.randn(heads, CHANNELS, width, generator=generator)
        return (field @ weight)[None] / CHANNELS**0.5

    query, other, value = projected(), projected(), projected()
    length = width**0.5
    query, key = (normalize(x, dim=-1) * length for x in (query, query + other))
    return _turned(query, coordinates), _turned(key, coordinates), value


def _turned(x: Tensor, coordinates: Tensor) -> Tensor:
    """Rotary positions: an equal share of the channels for each axis."""
    axes = coordinates.shape[1]
    share = x.shape[-1] // axes // 2 * 2
    parts = []
    for axis in range(axes):
        even, odd = x[..., axis * share : (axis + 1) * share].unflatten(-1, (-1, 2)).unbind(-1)
        turns = 10000 ** (-torch.arange(0, share, 2) / share)
        angle = coordinates[:, axis, None] * turns
        cos, sin = angle.cos(), angle.sin()
        parts.append(torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2))
    return torch.cat([*parts, x[..., axes * share :]], -1)
