"""MRA attention, and Nyström attention beside it: tensors in, tensors out."""

from .api import mra_attention, mra_attention_weights
from .nystrom import nystrom_attention, nystrom_attention_weights
from .options import MRAOptions
from .presets import PRESETS, preset_options

__all__ = [
    "PRESETS",
    "MRAOptions",
    "mra_attention",
    "mra_attention_weights",
    "nystrom_attention",
    "nystrom_attention_weights",
    "preset_options",
]
