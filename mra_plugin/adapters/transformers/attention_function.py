"""The attention function that transformers calls in every layer."""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from mra_plugin.ops.local_attention import local_attention, local_attention_weights

from ..built_attention import BuiltAttention
from ..ordered_attention import attend_arranged
from .config_attention import attention_for, dense_weights
from .masks import read_mask
from .pictures import arrangement_in

if TYPE_CHECKING:
    from mra_plugin.registry import AttentionWithBias, AttentionWithWindows

# What a model may ask of attention that changes the result and can't be served.
_UNSERVED = ("position_bias", "softcap", "s_aux", "cache", "cu_seq_lens_q", "cu_seq_lens_k")


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attends as the config of ``module`` says; transformers' attention interface.

    Args:
        module: the attention layer.
        query: [B, H, Nq, D].
        key: [B, H or fewer, Nk, D].
        value: [B, H or fewer, Nk, Dv].
        attention_mask: what `masks.make_mask` made.
        dropout: probability that the model's own attention would drop a weight with.
        scaling: factor on the logits; None means 1/√D.
        is_causal: overrides the layer's own ``is_causal``.
        **kwargs: what the model passes on; ``output_attentions`` asks for the weights,
            ``score_bias`` [Nq, Nk] is added to the scores.

    Returns:
        The output [B, Nq, H, Dv], and the dense weights [B, H, Nq, Nk] or None.

    Raises:
        ValueError: the layer is causal, or asks for something that this attention has not.
    """
    layer = type(module).__name__
    if is_causal is None:
        # Of a layer that does not say, its model's mask did (`support`); so does a config that
        # makes a causal model an encoder.
        encodes = getattr(module.config, "is_causal", None) is False
        is_causal = getattr(module, "is_causal", False) and not encodes
    if is_causal:
        raise ValueError(
            f"{layer} is causal, and this attention is bidirectional; load the model with "
            'attn_implementation="sdpa"'
        )
    for name in _UNSERVED:
        if kwargs.get(name) is not None:
            raise ValueError(
                f"{layer} asks for {name}, which this attention has not; load the model with "
                'attn_implementation="sdpa"'
            )
    padding, reach = read_mask(attention_mask, key, not hasattr(module, "is_causal"))
    if reach is None and kwargs.get("sliding_window") is not None:
        raise ValueError(
            f"{layer} has a sliding window, but its mask does not; call the whole model instead "
            "of the layer, or leave attention_mask to the model"
        )
    if dropout:
        _say_that_there_is_no_dropout()

    heads = query.shape[1]
    if key.shape[1] != heads:  # grouped key heads
        key = key.repeat_interleave(heads // key.shape[1], dim=1)
        value = value.repeat_interleave(heads // value.shape[1], dim=1)

    weights = None
    attention = attention_for(module.config)  # type: ignore[arg-type]
    bias = kwargs.get("score_bias")
    if bias is not None:
        _check_bias(layer, attention, _wants_weights(module, kwargs))
    if query.is_meta:
        # Nothing is computed there, and all attention has the same shapes.
        out = nn.functional.scaled_dot_product_attention(query, key, value)
        if _wants_weights(module, kwargs):
            weights = query @ key.mT
    elif reach is not None:
        attend = local_attention
        if "window" in attention.serves:
            attend = cast("AttentionWithWindows", attention.attend).local_attention
        out = attend(query, key, value, padding, reach, scaling)
        if _wants_weights(module, kwargs):
            weights = local_attention_weights(query, key, padding, reach, scaling)
    elif bias is not None:
        biased = cast("AttentionWithBias", attention.attend).biased_attention
        out = biased(query, key, value, bias, padding, scale=scaling)
    else:
        queries = _served_queries(module, query, key, padding)
        arranged = arrangement_in(module.config, query.shape[2])
        if arranged is not None and key.shape[2] == query.shape[2]:
            out = attend_arranged(attention, query, key, value, padding, *arranged, scaling)
        else:
            out = attention.attend(query, key, value, padding, queries, scale=scaling)
        if arranged is not None and _wants_weights(module, kwargs):
            raise ValueError(
                "output_attentions=True can't be served with token_order, which attention matrices "
                "don't have; leave token_order out to look at them"
            )
        if _wants_weights(module, kwargs):
            weights = dense_weights(attention, query, key, padding, queries, scaling)
    return out.transpose(1, 2).contiguous(), weights


def _check_bias(layer: str, attention: BuiltAttention, wants_weights: bool) -> None:
    if "bias" not in attention.serves:
        raise ValueError(
            f"{layer} adds a bias to its scores, which attention {attention.name!r} does not serve"
        )
    if wants_weights:
        raise ValueError(
            f"output_attentions=True needs the attention matrices, which attention "
            f"{attention.name!r} does not give with the bias that {layer} adds to its scores"
        )


def _served_queries(
    module: nn.Module, query: Tensor, key: Tensor, key_padding: Tensor | None
) -> Tensor | None:
    """None, as all queries are served, unless the key mask could be taken for that of the queries.

    Models read outputs at padding: convolutions behind attention, pooling, query expansion.
    """
    if key_padding is None or query.shape[2] != key.shape[2] or not _may_cross(module):
        return None
    return torch.ones(query.shape[0], query.shape[2], dtype=torch.bool, device=query.device)


def _may_cross(module: nn.Module) -> bool:
    """Whether the keys may come from another sequence than the queries.

    Equal lengths don't tell. A layer that serves both kinds is one or the other by being in a
    decoder, where it says so.
    """
    if _takes_other_states(type(module)):
        return bool(getattr(module, "is_decoder", True))
    return "Cross" in type(module).__name__


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@functools.cache
def _takes_other_states(layer_class: type[nn.Module]) -> bool:
    taken = inspect.signature(layer_class.forward).parameters
    return "encoder_hidden_states" in taken or "key_value_states" in taken


def _wants_weights(module: nn.Module, kwargs: dict[str, Any]) -> bool:
    wanted = kwargs.get("output_attentions")
    if wanted is None:
        wanted = getattr(module.config, "output_attentions", False)
    return bool(wanted)


_said: set[str] = set()


# Seen as a constant, torch.compile runs it while it traces instead of breaking the graph.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _say_that_there_is_no_dropout() -> None:
    if "dropout" not in _said:
        _said.add("dropout")
        warnings.warn(
            "the model asks for attention dropout in training, which this attention has not: it "
            "trains without (other dropout stays)",
            UserWarning,
            stacklevel=2,
        )
