"""transformers' own MRA models: their layers, and the attention matrices that they never gave.

Without its CUDA kernel a layer of theirs returns zeros. With one of our implementations it
computes attention, by default with the parameters that the model was trained with.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, NamedTuple

from torch import Tensor

from ...built_attention import BuiltAttention
from ..config_attention import MRA, attention_for, attention_with, dense_weights
from ..masks import read_model_mask
from .class_patches import asks_for_ours, project, replace_forward
from .mra_options import options_of
from .table import Layers, mra_scale


class _Call(threading.local):
    """What a call was told, which does not leave its thread.

    Heads don't tell their base model that attention matrices are wanted, and it does not tell its
    encoder.
    """

    def __init__(self) -> None:
        # Set for each thread, as torch.compile would compile again once it is there.
        self.output_attentions: bool | None = None


_call = _Call()


class _MaskAskingForWeights(NamedTuple):
    """Stands in the mask's place between encoder and layers, to ask for the matrices as well."""

    mask: Tensor | None


def _attend(
    self: Any, hidden_states: Tensor, attention_mask: Tensor | _MaskAskingForWeights | None = None
) -> tuple[Tensor, ...]:
    """The forward of a layer: output [B, N, hidden], and the matrices if they are asked for."""
    wanted = isinstance(attention_mask, _MaskAskingForWeights)
    mask = (
        attention_mask.mask if isinstance(attention_mask, _MaskAskingForWeights) else attention_mask
    )
    query, key, value = project(self, hidden_states)
    padding = read_model_mask(mask, hidden_states)
    attention = _attention(self.config)
    scale = mra_scale(self.attention_head_size)
    context = attention.attend(query, key, value, padding, scale=scale)
    out = context.transpose(1, 2).flatten(2)
    if not wanted:
        return (out,)
    return out, dense_weights(attention, query, key, padding, None, scale)


def _attention(config: Any) -> BuiltAttention:
    attention = attention_for(config)  # refuses wrong parameters
    if config._attn_implementation != MRA:
        return attention
    return attention_with(MRA, options_of(config, config.mra or {}))


def _wants_weights(encoder: Any) -> bool:
    return asks_for_ours(encoder) and bool(_call.output_attentions)


def _encode_with_weights(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    output_hidden_states: bool = False,
    return_dict: bool = True,
) -> Any:
    """The forward of an encoder that keeps each layer's matrices."""
    from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

    states, attentions = [hidden_states], []
    for layer in self.layer:
        # By way of the arguments, so that gradient checkpointing asks again.
        hidden_states, weights = layer(hidden_states, _MaskAskingForWeights(attention_mask))
        states.append(hidden_states)
        attentions.append(weights)
    output = BaseModelOutputWithCrossAttentions(
        last_hidden_state=hidden_states,
        hidden_states=tuple(states) if output_hidden_states else None,
        attentions=tuple(attentions),
    )
    return output if return_dict else output.to_tuple()


def _heed_output_attentions(model_class: Any) -> None:
    """Has a model or head take ``output_attentions`` for what it says."""
    forward = model_class.forward

    @functools.wraps(forward)
    def forward_and_tell(
        self: Any, *args: Any, output_attentions: bool | None = None, **kwargs: Any
    ) -> Any:
        before = _call.output_attentions
        if output_attentions is None:
            # Inside of a head, what the head was told; else the config.
            output_attentions = self.config.output_attentions if before is None else before
        _call.output_attentions = output_attentions
        try:
            return forward(self, *args, **kwargs)
        finally:
            _call.output_attentions = before

    model_class.forward = forward_and_tell


def _change_more(modeling_mra: Any) -> None:
    """Has encoders keep the matrices, and models take ``output_attentions`` for what it says."""
    replace_forward(modeling_mra.MraEncoder, _encode_with_weights, _wants_weights)
    for model_class in modeling_mra.MraPreTrainedModel.__subclasses__():
        _heed_output_attentions(model_class)


LAYERS = Layers(forward=_attend, project=project, change_more=_change_more)
