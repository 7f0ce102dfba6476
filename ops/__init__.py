"""MRA attention, and beside it Nyström attention and MEGA's moving average.

Tensors in, tensors out.
"""

from .api import mra_attention, mra_attention_weights
from .ema import damped_ema
from .nystrom import nystrom_attention, nystrom_attention_weights
from .options import MRAOptions
from .presets import PRESETS, preset_options

__all__ = [
    "PRESETS",
    "MRAOptions",
    "damped_ema",
    "mra_attention",
    "mra_attention_weights",
    "nystrom_attention",
    "nystrom_attention_weights",
    "preset_options",
]
