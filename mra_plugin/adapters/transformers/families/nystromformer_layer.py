"""What a layer of Nyströmformer computes, in transformers' models and in this package's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mra_plugin.backends.nystrom import convolve_values

from ...built_attention import BuiltAttention
from ..config_attention import (
    IMPLEMENTATIONS,
    REGISTRY,
    attention_for,
    attention_with,
    dense_weights,
)
from .class_patches import project


def attention_of(config: Any) -> BuiltAttention:
    """The attention of a Nyströmformer's layers, without their convolution.

    Args:
        config: transformers' or this package's ``NystromformerConfig``.

    Returns:
        What `mra_plugin.patch` put in, where ``"nystrom"`` has what it was not given from the
        fields; and else what the fields say: exact attention where there are as many landmarks as
        tokens in ``segment_means_seq_len``, and otherwise Nyström attention.

    Raises:
        TypeError: a parameter in the config has the wrong type.
        ValueError: a parameter in the config is unknown or has a wrong value.
    """
    params = {}
    if config._attn_implementation in IMPLEMENTATIONS:
        attention = attention_for(config)  # refuses wrong parameters
        if config._attn_implementation != REGISTRY or attention.name != "nystrom":
            return attention
        stored = getattr(config, REGISTRY)
        params = {option: value for option, value in stored.items() if option != "name"}
    elif config.num_landmarks == config.segment_means_seq_len:
        return attention_with("sdpa", {})
    return attention_with("nystrom", {**_options(config), **params})


def attend(
    layer: Any, hidden_states: Tensor, padding_mask: Tensor | None, output_attentions: bool
) -> tuple[Tensor, Tensor | None]:
    """What a layer computes, by the attention of its config and its convolution, if it has one.

    Args:
        layer: with ``query``, ``key``, ``value``, ``attention_head_size``, ``config`` and, unless
            ``conv_kernel_size`` is None, ``conv``.
        hidden_states: [B, N, hidden].
        padding_mask: bool [B, N], True = a real token. None: all are real.
        output_attentions: whether the matrices are wanted.

    Returns:
        Output [B, N, hidden], and the matrices [B, H, N, N] of the attention alone, or None.
    """
    query, key, value = project(layer, hidden_states)
    attention = attention_of(layer.config)
    weights = None
    if output_attentions:
        weights = dense_weights(attention, query, key, padding_mask, None, None)
        # From the matrices that are given out, so that they have gradients.
        context = torch.matmul(weights, value)
    else:
        context = attention.attend(query, key, value, padding_mask)
    if layer.conv_kernel_size is not None:
        context = context + convolve_values(layer.conv, value, padding_mask)
    return context.transpose(1, 2).flatten(2), weights


def _options(config: Any) -> dict[str, Any]:
    """The parameters of ``"nystrom"`` that the fields of a config stand for."""
    options: dict[str, Any] = {"num_landmarks": config.num_landmarks}
    if config.inv_coeff_init_option:
        options["pinv_start"] = "head"
    return options
