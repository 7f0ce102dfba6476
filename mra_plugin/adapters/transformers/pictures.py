"""Tiles of a picture's or clip's patches, in vision encoders that ask for them.

``token_order`` stands in ``config.mra`` beside the attention's own parameters. Layers don't know
the grid that their tokens stand in, so its order is worked out where pictures come in, in the
model's forward, and handed down by the config that all of its layers have.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mra_plugin.ops.token_order import grid_coordinates

from ..ordered_attention import Arrangement, in_tiles
from .config_attention import token_order_of
from .hooks import ARRANGEMENT

if TYPE_CHECKING:
    from torch import nn

# Tokens in front of the patches, which stand in reading order; registers are counted by the config.
_IN_FRONT = {
    "clip_vision_model": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
    "ijepa": 0,
    "siglip_vision_model": 0,
    "vit": 1,
    "vjepa2": 0,
}
_PIXELS = ("pixel_values", "pixel_values_videos")


def check_pictures(model: nn.Module) -> None:
    """Refuses a token order for a model without a known grid.

    Raises:
        ValueError: none of its modules is such an encoder.
    """
    if not any(_is_known(getattr(module, "config", None)) for module in model.modules()):
        raise ValueError(
            f"token_order is for vision encoders of known grids ({', '.join(sorted(_IN_FRONT))}), "
            f"and {type(model).__name__} holds none; leave token_order out"
        )


def note_pictures(model_class: Any) -> None:
    """Has a model class look at the pictures that it is called with, if its config asks for it."""
    owner = next(one for one in model_class.__mro__ if "forward" in vars(one))
    own = owner.forward
    names = list(inspect.signature(own).parameters)[1:]
    pixels = next((name for name in _PIXELS if name in names), None)
    if pixels is None or getattr(own, "_notes_pictures", False):
        return

    @functools.wraps(own)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = self.config
        if _is_known(config) and token_order_of(config) is not None:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            if isinstance(picture := given.get(pixels), Tensor):
                coordinates = grid_coordinates(_grid(picture, config), picture.device)
                setattr(config, ARRANGEMENT, in_tiles(coordinates))
        return own(self, *args, **kwargs)

    forward._notes_pictures = True  # type: ignore[attr-defined]
    owner.forward = forward


def arrangement_in(config: Any, tokens: int) -> tuple[Arrangement, int] | None:
    """The order of a layer's tokens and how many stand before it, or None if it has none.

    Args:
        config: the layer's.
        tokens: that it attends over; other layers of an encoder (a predictor) may have others.
    """
    if token_order_of(config) is None or not _is_known(config):
        return None
    arrangement: Arrangement | None = getattr(config, ARRANGEMENT, None)
    before = _IN_FRONT[config.model_type] + getattr(config, "num_register_tokens", 0)
    if arrangement is None or arrangement.order.shape[0] + before != tokens:
        return None
    return arrangement, before


def _is_known(config: Any) -> bool:
    return getattr(config, "model_type", None) in _IN_FRONT


def _grid(picture: Tensor, config: Any) -> tuple[int, ...]:
    """Sides of the grid of patches: [B, C, H, W], or of a clip [B, T, C, H, W]."""
    size = config.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    sides = (picture.shape[-2] // height, picture.shape[-1] // width)
    if picture.ndim == 4:
        return sides
    return (max(1, picture.shape[1] // config.tubelet_size), *sides)
