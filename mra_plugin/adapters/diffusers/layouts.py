"""Where a family of transformers has its picture's tokens in the row, a row each.

What a call alone can't say: whether text stands in one row with the picture, and on which side. All
else (layers, their processors, the sides of the grid) the models are asked themselves. For a class
without a row `patch` asks for ``token_order=None``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layout:
    """Where the picture's tokens stand in self-attention.

    Attributes:
        text: which side of them has the text: ``"front"``, ``"behind"``, or ``"none"`` if text is
            seen by cross-attention or not at all.
        frames_first: whether latents of clips are [B, frames, channels, height, width] instead of
            [B, channels, frames, height, width].
    """

    text: Literal["none", "front", "behind"]
    frames_first: bool = False


_ALONE = Layout("none")
_FRONT = Layout("front")
_BEHIND = Layout("behind")

LAYOUTS: dict[str, Layout] = {
    "AuraFlowTransformer2DModel": _FRONT,
    "ChromaTransformer2DModel": _FRONT,
    "CogVideoXTransformer3DModel": Layout("front", frames_first=True),
    "CogView4Transformer2DModel": _FRONT,
    "CosmosTransformer3DModel": _ALONE,
    "DiTTransformer2DModel": _ALONE,
    "Flux2Transformer2DModel": _FRONT,
    "FluxTransformer2DModel": _FRONT,
    "HunyuanDiT2DModel": _ALONE,
    "HunyuanVideoTransformer3DModel": _BEHIND,
    "LTXVideoTransformer3DModel": _ALONE,
    "MochiTransformer3DModel": _BEHIND,
    "PixArtTransformer2DModel": _ALONE,
    "QwenImageTransformer2DModel": _FRONT,
    "SD3Transformer2DModel": _BEHIND,
    "SkyReelsV2Transformer3DModel": _ALONE,
    "WanTransformer3DModel": _ALONE,
    "WanVACETransformer3DModel": _ALONE,
}


def layout_of(model_class: type) -> Layout | None:
    """The layout of a class or of one that it derives from; None if there is no row."""
    names = (one.__name__ for one in model_class.__mro__)
    return next((LAYOUTS[name] for name in names if name in LAYOUTS), None)
