"""Tiny Nyströmformer models of this package, with weights that make attention sharp."""

from __future__ import annotations

import torch
from torch import nn

import mra_plugin
from helpers import tiny_mra

HEADS = [head.replace("Mra", "Nystromformer") for head in tiny_mra.HEADS]
SIZES = {
    **{name: size for name, size in tiny_mra.SIZES.items() if "block" not in name},
    "segment_means_seq_len": 128,
    "num_landmarks": 8,
    "conv_kernel_size": 9,
    "type_vocab_size": 1,
}
HEAD_COUNT, STILL = tiny_mra.HEAD_COUNT, tiny_mra.STILL
KEPT_WHOLE, LAYER_LIST = tiny_mra.KEPT_WHOLE, tiny_mra.LAYER_LIST
inputs_of, labels_of = tiny_mra.inputs_of, tiny_mra.labels_of


def config(**extra: object) -> mra_plugin.NystromformerConfig:
    return mra_plugin.NystromformerConfig(**{**SIZES, **extra})


def make(head: str = "NystromformerModel", **extra: object) -> nn.Module:
    torch.manual_seed(0)
    return getattr(mra_plugin, head)(config(**extra)).eval()
