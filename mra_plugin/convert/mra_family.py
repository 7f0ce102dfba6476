"""BERT and RoBERTa, turned into models of the MRA family."""

from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mra_plugin.adapters.patching import patch
from mra_plugin.encoders.positions import PositionTable, position_tables
from mra_plugin.encoders.tensors import belongs_to, listed
from mra_plugin.errors import UserError
from mra_plugin.models.mra.configuration import MraConfig
from mra_plugin.models.mra.encoder import MraModel, MraPreTrainedModel
from mra_plugin.models.mra.heads import (
    MraForMaskedLM,
    MraForQuestionAnswering,
    MraForTokenClassification,
)
from mra_plugin.models.post_norm import POSITION_OFFSET, default_positions
from mra_plugin.ops import MRAOptions

# Families whose layers are the MRA family's but for attention, and how their classes begin.
FAMILIES = {
    "bert": "Bert",
    "camembert": "Camembert",
    "data2vec-text": "Data2VecText",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
}
# Heads that compute the same. Those for whole sequences and multiple choice have tanh where the
# MRA family has other activations.
_HEADS: dict[str, type[MraPreTrainedModel]] = {
    "ForMaskedLM": MraForMaskedLM,
    "ForPreTraining": MraForMaskedLM,
    "ForQuestionAnswering": MraForQuestionAnswering,
    "ForTokenClassification": MraForTokenClassification,
}
# RoBERTa's names for parts of the masked language model's head.
_RENAMED = {
    "lm_head.dense.": "cls.predictions.transform.dense.",
    "lm_head.layer_norm.": "cls.predictions.transform.LayerNorm.",
    "lm_head.decoder.": "cls.predictions.decoder.",
    "lm_head.bias": "cls.predictions.bias",
}
_SAME = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("type_vocab_size", "initializer_range", "layer_norm_eps", "chunk_size_feed_forward"),
    *("pad_token_id", "bos_token_id", "eos_token_id"),
    *("id2label", "label2id", "problem_type"),
)
# Parameters of MRA attention that are fields of the config.
_OPTIONS = {one.name for one in fields(MRAOptions)} & {one.name for one in fields(MraConfig)}
_DEFAULTS = asdict(MRAOptions())
_LEAST_HEAD_SIZE = 32


def to_mra(model: PreTrainedModel, drop: Collection[str] = (), **params: Any) -> PreTrainedModel:
    """Makes an MRA-family model of a BERT or RoBERTa model.

    With a budget that covers all blocks it computes what ``model`` does at real tokens, but for
    one thing: RoBERTa does not count padding when it gives out positions, the MRA family does.
    That is the same for padding at the end.

    Args:
        model: BERT, CamemBERT, data2vec-text, RoBERTa or XLM-RoBERTa, without a head or with one
            that the MRA family has too: masked language model, token classification, question
            answering. The new model takes over its tensors; don't use both.
        drop: names of parts to leave out, for example ``["pooler"]``, which the family has not.
            Without its head the model becomes an `mra_plugin.MraModel`.
        **params: parameters of MRA attention; those that are fields of
            `mra_plugin.MraConfig` go there, others into ``config.mra``.

    Returns:
        The new model, with the same data type, device and mode.

    Raises:
        UserError: the model is of another family, or a tensor has no place; names it.
        TypeError: a parameter has the wrong type.
        ValueError: a parameter is unknown or has a wrong value.
    """
    source = model.config
    if source.model_type not in FAMILIES:
        raise UserError(
            f"{type(model).__name__} can't become an MRA model; {', '.join(FAMILIES)} can"
        )
    table = position_tables(model)[0]
    own = {name: value for name, value in params.items() if name in _OPTIONS}
    words, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    config = MraConfig(
        **{name: getattr(source, name) for name in _SAME},
        max_position_embeddings=table.positions,
        tie_word_embeddings=decoder is None or decoder.weight is words.weight,
        **own,
    )
    head_size = source.hidden_size // source.num_attention_heads
    if head_size < _LEAST_HEAD_SIZE:
        raise UserError(
            f"the MRA family scales attention for heads of at least {_LEAST_HEAD_SIZE} channels, "
            f"and {type(model).__name__} has heads of {head_size}"
        )
    target_class = _target_class(model, drop)
    with torch.device("meta"):
        new: PreTrainedModel = target_class(config)
    new.load_state_dict(_mapped(model, new, table, drop), assign=True)
    new.tie_weights()
    new.train(model.training)
    others = {
        name: value
        for name, value in params.items()
        if name not in own and (name not in _DEFAULTS or value != _DEFAULTS[name])
    }
    return patch(new, **others) if others else new


def _target_class(model: PreTrainedModel, drop: Collection[str]) -> type[MraPreTrainedModel]:
    in_base = {id(one) for one in model.base_model.parameters()}
    own = [key for key, one in model.named_parameters() if id(one) not in in_base]
    if all(belongs_to(key, drop) for key in own):
        return MraModel
    head = type(model).__name__.removeprefix(FAMILIES[model.config.model_type])
    return _HEADS.get(head, MraModel)


def _mapped(
    model: PreTrainedModel, new: PreTrainedModel, table: PositionTable, drop: Collection[str]
) -> dict[str, Tensor]:
    """The state of the new model, from the tensors of the old one."""
    places = new.state_dict()
    state, without_place = {}, []
    for key, tensor in model.state_dict().items():
        if belongs_to(key, drop):
            continue
        place = _place(key, model, new)
        if place.endswith("embeddings.position_embeddings.weight"):
            tensor = _positions(table)
        if place in places and places[place].shape == tensor.shape and _same_act(key, model):
            state[place] = tensor
        else:
            without_place.append(key)
    if without_place:
        raise UserError(
            f"{type(new).__name__} has no place for {len(without_place)} tensors of "
            f"{type(model).__name__}: {listed(without_place)}; --drop NAME leaves out a part of "
            "that name, such as pooler or classifier"
        )
    for place in places:
        if place.endswith("embeddings.position_ids"):
            count = new.config.max_position_embeddings
            state[place] = default_positions(count).to(table.table.weight.device)
    if emptied := [place for place in places if place not in state]:
        raise UserError(
            f"{type(new).__name__} can't do without {len(emptied)} tensors: {listed(emptied)}"
        )
    return state


def _place(key: str, model: PreTrainedModel, new: PreTrainedModel) -> str:
    """Where a tensor goes."""
    old, prefix = f"{model.base_model_prefix}.", f"{new.base_model_prefix}."
    headless = new.base_model is new
    if model.base_model is model:
        return key if headless else prefix + key
    if key.startswith(old):
        return key.removeprefix(old) if headless else prefix + key.removeprefix(old)
    for start, renamed in _RENAMED.items():
        if key.startswith(start):
            return renamed + key.removeprefix(start)
    return key


def _same_act(key: str, model: PreTrainedModel) -> bool:
    """RoBERTa's head always has gelu, the MRA family's that of the config."""
    return not key.startswith("lm_head.dense.") or model.config.hidden_act == "gelu"


def _positions(table: PositionTable) -> Tensor:
    """The rows of a table behind as many that stand for no position as the MRA family has."""
    weight = table.table.weight.detach()
    first = torch.cat(
        (weight.new_zeros(POSITION_OFFSET, weight.shape[1]), weight[: table.reserved])
    )
    return torch.cat((first[-POSITION_OFFSET:], table.learned))
