"""MRA attention: tensors in, tensors out."""

from .api import mra_attention, mra_attention_weights
from .options import MRAOptions

__all__ = ["MRAOptions", "mra_attention", "mra_attention_weights"]
