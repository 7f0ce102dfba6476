"""Cuts the inputs of an encoder into one shard of the sequence per process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from .group import sequence_group
from .ulysses import NAME, UlyssesAttention

# Encoders whose tokens meet in attention alone, and whose positions can be given. ESM scales by
# what it finds masked in its sequence, Nyströmformer convolves over tokens, ViT takes images.
MODEL_TYPES = (
    "albert",
    "bert",
    "camembert",
    "data2vec-text",
    "distilbert",
    "electra",
    "ernie",
    "eurobert",
    "modernbert",
    "mra",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
)


def shard_inputs(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """This process's part of a batch of sequences, for a model with attention ``"ulysses"``.

    Every process gives the same whole batch. A length that is no multiple of the number of
    processes is filled up with padding, which `gather_sequence` cuts off again. What the model does
    with a single token (a pooler, a classifier on the first one) is only right in the process that
    holds it: run the encoder without it, and the rest on what `gather_sequence` gives.

    Args:
        model: a transformers encoder that `mra_plugin.patch` gave the attention ``"ulysses"``,
            perhaps wrapped, as by DistributedDataParallel.
        input_ids: [B, N].
        attention_mask: [B, N], not 0 at a real token; None if all are real.
        position_ids: [B or 1, N]; None numbers the tokens as the model does itself.
        token_type_ids: [B, N].
        labels: [B, N], one per token; padding gets -100, which losses leave out.

    Returns:
        Arguments for the model by name, [B, ⌈N/P⌉] each.

    Raises:
        RuntimeError: there is no process group.
        TypeError: ``model`` holds no transformers model.
        ValueError: the model does not have the attention, is of a kind whose tokens meet outside of
            it, or has too few positions; or an input has another shape than ``input_ids``.
    """
    encoder = _encoder(model)
    group = sequence_group()
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be [batch, tokens], got shape {list(input_ids.shape)}")
    batch, length = input_ids.shape
    fill = -length % group.size()
    if position_ids is None:
        position_ids = _positions(encoder, input_ids)
    elif position_ids.ndim == 2 and position_ids.shape[0] == 1:
        position_ids = position_ids.expand(batch, -1)
    if attention_mask is None and fill:
        attention_mask = torch.ones_like(input_ids)

    inputs = {
        "input_ids": (input_ids, encoder.config.pad_token_id or 0),
        "attention_mask": (attention_mask, 0),
        "position_ids": (position_ids, 0),
        "token_type_ids": (token_type_ids, 0),
        "labels": (labels, -100),
    }
    shards = {}
    for name, (whole, filling) in inputs.items():
        if whole is None:
            continue
        if whole.shape != input_ids.shape:
            raise ValueError(
                f"{name} must have the shape of input_ids, {[batch, length]}, "
                f"got {list(whole.shape)}"
            )
        padded = pad(whole, (0, fill), value=filling)
        shards[name] = padded.chunk(group.size(), dim=1)[group.rank()].contiguous()
    return shards


def attends_across(config: Any) -> bool:
    """Whether a model with this config takes shards of sequences, by its attention."""
    from mra_plugin.adapters.transformers.config_attention import IMPLEMENTATIONS, attention_for

    ours = config._attn_implementation in IMPLEMENTATIONS
    return ours and isinstance(attention_for(config).attend, UlyssesAttention)


def _encoder(model: nn.Module) -> Any:
    from mra_plugin.adapters.transformers.modules import at_least_one_encoder_in

    encoder = at_least_one_encoder_in(model)[0]
    config = encoder.config
    if not attends_across(config):
        raise ValueError(
            f"model must attend across the processes, but its attention is "
            f"{config._attn_implementation!r}; call mra_plugin.patch(model, attention={NAME!r}) "
            "first"
        )
    if config.model_type not in MODEL_TYPES:
        raise ValueError(
            f"a model of type {config.model_type!r} can't run on shards of a sequence; those that "
            f"can are {', '.join(MODEL_TYPES)}"
        )
    return encoder


def _positions(encoder: Any, input_ids: Tensor) -> Tensor:
    """The position ids that an encoder gives to the tokens of whole sequences, [B, N]."""
    batch, length = input_ids.shape
    embeddings = getattr(encoder.base_model, "embeddings", None)
    known = getattr(embeddings, "position_ids", None)  # [1, positions]
    if embeddings is None or known is None:  # rotary
        return torch.arange(length, device=input_ids.device).expand(batch, -1)
    # RoBERTa and its kin count real tokens, from the row after that of padding.
    count = getattr(embeddings, "create_position_ids_from_input_ids", None)
    limit = known.shape[1] - (0 if count is None else embeddings.padding_idx + 1)
    if length > limit:
        raise ValueError(
            f"input_ids must have at most {limit} tokens, for which the model has positions, "
            f"got {length}"
        )
    if count is None:
        first: Tensor = known[:, :length]
        return first.to(input_ids.device).expand(batch, -1)
    counted: Tensor = count(input_ids, embeddings.padding_idx)
    return counted
