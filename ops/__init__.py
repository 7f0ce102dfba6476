"""MRA attention: tensors in, tensors out."""

from mra_plugin.ops.api import mra_attention, mra_attention_weights
from mra_plugin.ops.options import MRAOptions

__all__ = ["MRAOptions", "mra_attention", "mra_attention_weights"]
