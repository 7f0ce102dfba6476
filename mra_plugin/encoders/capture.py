"""What the attention layers of an encoder are handed while it reads something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig

from mra_plugin.adapters.patching import patch
from mra_plugin.adapters.transformers.attention_function import attention_forward
from mra_plugin.adapters.transformers.config_attention import IMPLEMENTATIONS, MRA, stored_params
from mra_plugin.adapters.transformers.families.table import Family, family_of_layer
from mra_plugin.adapters.transformers.masks import make_mask, read_mask, read_model_mask
from mra_plugin.adapters.transformers.modules import (
    at_least_one_encoder_in,
    configs_in,
    copy_with_same_weights,
    encoders_in,
)

# transformers' name for attention that tells what it is handed, and the config attributes that
# hold what it then attends with and whom it tells. They only ever reach copies.
_RECORDING = "mra_plugin_recording"
_RECORD = "_mra_plugin_record"

_Record = Callable[..., None]


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """What one attention layer was handed.

    Attributes:
        layer: the layer's name in the model, as ``named_modules`` gives it.
        query: [B, H, N, D], after rotary positions where the model has them.
        key: [B, H, N, D], likewise; grouped key heads are repeated.
        value: [B, H, N, Dv]; grouped heads are repeated.
        key_padding_mask: bool [B, N], True at a real token; None if all are real.
        scale: factor on the scores; None means 1/sqrt(D).
        reach: how many positions to each side a layer sees that is local by design (ModernBERT's
            sliding windows); None for a layer that sees everything.
    """

    layer: str
    query: Tensor
    key: Tensor
    value: Tensor
    key_padding_mask: Tensor | None
    scale: float | None
    reach: int | None = None


def attention_inputs(model: nn.Module, **inputs: Any) -> list[AttentionInputs]:
    """Runs an encoder once and gives what each attention layer was handed.

    What flows from layer to layer is computed with exact attention, also in models whose own
    attention approximates (MRA, Nyströmformer). A model that `mra_plugin.patch` changed, or that
    was loaded with ``attn_implementation="mra"``, runs with the attention that it has.

    The run uses a copy with the same weights in memory, so the model stays as it is whatever
    happens, and other threads may use it meanwhile. It runs without gradients, in the mode that
    the model is in: call ``model.eval()`` first where dropout is not wanted.

    Args:
        model: an encoder that `mra_plugin.patch` serves.
        **inputs: what the model is called with, such as ``input_ids``.

    Returns:
        One entry for each call of an attention layer, in order: a layer that a model uses
        repeatedly (ALBERT) has as many entries. The tensors lie on the model's device.

    Raises:
        TypeError: ``model`` holds no transformers model.
        ValueError: the model can't take another attention, or its scores depend on more than
            query and key (relative positions); a mask is no plain padding; or no attention layer
            was called.
    """
    own = getattr(model, "_orig_mod", model)
    at_least_one_encoder_in(own)  # refused before it is copied
    twin = copy_with_same_weights(own)
    _make_exact(twin)
    found: list[AttentionInputs] = []
    names = {id(module): name for name, module in twin.named_modules()}

    def record(layer: nn.Module, *handed: Any) -> None:
        found.append(AttentionInputs(names[id(layer)], *handed))

    _listen(twin, record)
    with torch.no_grad():
        twin(**inputs)
    if not found:
        raise ValueError(f"{type(model).__name__} called no attention layer")
    return found


def _make_exact(twin: nn.Module) -> None:
    """Puts exact attention where neither `patch` nor a checkpoint chose another."""
    for encoder in encoders_in(twin):
        if not any(_is_ours(config) for config in configs_in([encoder])):
            patch(encoder, attention="sdpa")


def _is_ours(config: PreTrainedConfig) -> bool:
    return config._attn_implementation in IMPLEMENTATIONS


def _listen(twin: nn.Module, record: _Record) -> None:
    """Has every attention layer of a copy tell ``record`` what it is handed."""
    hooked = set()
    for module in twin.modules():
        family = family_of_layer(type(module))
        if family is not None:
            module.register_forward_pre_hook(partial(_record_projections, family, record))
            hooked.add(id(module.config))
    AttentionInterface.register(_RECORDING, _record_and_attend)
    AttentionMaskInterface.register(_RECORDING, make_mask)
    for config in configs_in([twin]):
        if not _is_ours(config) or id(config) in hooked:
            continue
        params = stored_params(config, str(config._attn_implementation))
        if config._attn_implementation == MRA:
            params = {"name": MRA, **params}
        setattr(config, _RECORDING, params)
        setattr(config, _RECORD, record)
        config._attn_implementation = {"": _RECORDING}


def _record_and_attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """`attention_forward`, which first tells what it is handed."""
    if kwargs.get("score_bias") is not None:
        raise ValueError(
            f"the scores of {type(module).__name__} depend on distances (score_bias), which query "
            "and key don't hold"
        )
    padding, reach = read_mask(attention_mask, key)
    groups = query.shape[1] // key.shape[1]
    in_all_heads = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    record = getattr(module.config, _RECORD)
    record(module, query, *in_all_heads, padding, scaling, reach)
    return attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def _record_projections(family: Family, record: _Record, layer: Any, args: tuple[Any, ...]) -> None:
    """Tells what a layer that computes attention itself will make of its arguments."""
    hidden_states, mask = args[:2]
    positions = getattr(layer, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise ValueError(
            f"the scores of {type(layer).__name__} depend on distances "
            f"(position_embedding_type={positions!r}), which query and key don't hold"
        )
    if isinstance(mask, tuple):  # with output_attentions, transformers' MRA gets a pair
        mask = mask[0]
    padding = read_model_mask(mask, hidden_states)
    scale = None if family.scale is None else family.scale(layer.attention_head_size)
    record(layer, *family.layers().project(layer, hidden_states), padding, scale, None)
