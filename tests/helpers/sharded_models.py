"""Tiny encoders on shards of a sequence, and the same in one process alone."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers as tf
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import mra_plugin
from mra_plugin.parallel import gather_sequence, shard_inputs, shard_parameters

TOKENS = 70  # no multiple of 4, so that shards need padding
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 72,
    "initializer_range": 0.3,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
DISTILBERT: dict[str, Any] = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 48,
    "vocab_size": 64,
    "max_position_embeddings": 72,
    "initializer_range": 0.3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
MODERNBERT = {
    "layer_types": ["full_attention", "sliding_attention"],
    "local_attention": 20,
    "cls_token_id": 0,
    "sep_token_id": 2,
}
MAKE: dict[str, tuple[type, type, dict[str, Any]]] = {
    "albert": (tf.AlbertModel, tf.AlbertConfig, {"embedding_size": 16}),
    "bert": (tf.BertModel, tf.BertConfig, {}),
    "camembert": (tf.CamembertModel, tf.CamembertConfig, {}),
    "data2vec-text": (tf.Data2VecTextModel, tf.Data2VecTextConfig, {}),
    "distilbert": (tf.DistilBertModel, tf.DistilBertConfig, DISTILBERT),
    "electra": (tf.ElectraModel, tf.ElectraConfig, {"embedding_size": 16}),
    "ernie": (tf.ErnieModel, tf.ErnieConfig, {}),
    "eurobert": (tf.EuroBertModel, tf.EuroBertConfig, {"num_key_value_heads": 2}),
    "modernbert": (tf.ModernBertModel, tf.ModernBertConfig, MODERNBERT),
    "mra": (mra_plugin.MraModel, mra_plugin.MraConfig, {}),
    "roberta": (tf.RobertaModel, tf.RobertaConfig, {}),
    "roberta-prelayernorm": (tf.RobertaPreLayerNormModel, tf.RobertaPreLayerNormConfig, {}),
    "xlm-roberta": (tf.XLMRobertaModel, tf.XLMRobertaConfig, {}),
}
# Per row, as the MRA models' own budget for all rows together comes from their config.
ATTENTION = {"block_size": 8, "block_per_row": 2, "selection": "per_row"}
HOW = ("plain", "checkpointing", "ddp", "fsdp")


def make(family: str) -> Any:
    torch.manual_seed(0)
    model_class, config_class, extra = MAKE[family]
    sizes = extra if family == "distilbert" else {**SIZES, **extra}
    return model_class(config_class(**sizes)).double().train()


def batch(family: str, masked: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 64, (2, TOKENS), generator=generator)
    if not masked:
        return {"input_ids": ids}
    mask = torch.arange(TOKENS)[None] < torch.tensor([[TOKENS], [45]])
    return {"input_ids": ids.where(mask, torch.tensor(1)), "attention_mask": mask.long()}


def loss_of(hidden: Tensor, mask: Tensor | None) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(hidden.shape, generator=generator, dtype=hidden.dtype)
    if mask is not None:  # a model's outputs at padding mean nothing
        hidden, weight = hidden[mask.bool()], weight[mask.bool()]
    return (hidden * weight).mean()


def alone(family: str, masked: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Hidden states of the real tokens, and the gradients of all parameters."""
    model = mra_plugin.patch(make(family), attention="mra", **ATTENTION)
    inputs = batch(family, masked)
    hidden = model(**inputs).last_hidden_state
    loss_of(hidden, inputs.get("attention_mask")).backward()
    return real(hidden, inputs), gradients(model)


def together(family: str, masked: bool, how: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The same from shards; gradients are averaged over the processes."""
    model = mra_plugin.patch(make(family), attention="ulysses", inner="mra", **ATTENTION)
    if how == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    runner: nn.Module = model
    if how == "ddp":
        runner = DistributedDataParallel(model, find_unused_parameters=True)
    if how == "fsdp":
        shard_parameters(model)
    inputs = batch(family, masked)
    hidden = runner(**shard_inputs(runner, **inputs)).last_hidden_state
    hidden = gather_sequence(hidden, TOKENS)
    loss_of(hidden, inputs.get("attention_mask")).backward()
    if how in ("plain", "checkpointing"):
        for parameter in model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
    return real(hidden, inputs), gradients(model)


def real(hidden: Tensor, inputs: dict[str, Tensor]) -> np.ndarray:
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    return hidden[mask.bool()].detach().numpy()


def gradients(model: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: (p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad).numpy()
        for name, p in model.named_parameters()
        if p.grad is not None
    }
