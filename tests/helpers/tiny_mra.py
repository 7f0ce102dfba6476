"""Tiny MRA models, with weights large enough for attention to be sharp."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

import mra_plugin

HEADS = [
    "MraModel",
    "MraForMaskedLM",
    "MraForSequenceClassification",
    "MraForMultipleChoice",
    "MraForTokenClassification",
    "MraForQuestionAnswering",
]
LAYERS, HEAD_COUNT, VOCABULARY = 2, 2, 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEAD_COUNT,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    "block_size": 16,
    "block_per_row": 2,
    "initializer_range": 0.2,
}
STILL = {"hidden_dropout_prob": 0.0}
KEPT_WHOLE, LAYER_LIST = ("Embeddings", "Layer"), "encoder.layer"


def config(**extra: object) -> mra_plugin.MraConfig:
    return mra_plugin.MraConfig(**{**SIZES, **extra})


def make(head: str = "MraModel", **extra: object) -> nn.Module:
    torch.manual_seed(0)
    return getattr(mra_plugin, head)(config(**extra)).eval()


def token_ids(batch: int = 2, tokens: int = 70) -> Tensor:
    return torch.randint(4, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(1))


def padded(batch: int = 2, tokens: int = 70, real: int = 45) -> Tensor:
    """A padding mask whose last row has ``real`` tokens."""
    mask = torch.ones(batch, tokens, dtype=torch.long)
    mask[-1, real:] = 0
    return mask


def inputs_of(head: str, batch: int = 2, tokens: int = 70, real: int = 45) -> dict[str, Tensor]:
    """Tokens and their mask, with an axis of three choices where the head has one."""
    inputs = {
        "input_ids": token_ids(batch, tokens),
        "attention_mask": padded(batch, tokens, real),
    }
    if head.endswith("ForMultipleChoice"):
        return {name: x[:, None].repeat(1, 3, 1) for name, x in inputs.items()}
    return inputs


def labels_of(head: str, batch: int = 2, tokens: int = 70) -> dict[str, Tensor]:
    """What a head is trained with; heads of two labels."""
    per_sequence = torch.arange(batch) % 2
    family = head[: re.search("Model$|For", head).start()]  # type: ignore[union-attr]
    return {
        "Model": {},
        "ForMaskedLM": {"labels": token_ids(batch, tokens)},
        "ForSequenceClassification": {"labels": per_sequence},
        "ForMultipleChoice": {"labels": per_sequence},
        "ForTokenClassification": {"labels": token_ids(batch, tokens) % 2},
        "ForQuestionAnswering": {
            "start_positions": per_sequence,
            "end_positions": per_sequence + 3,
        },
    }[head.removeprefix(family)]


@torch.no_grad()
def hidden(model: nn.Module, *args: object, **inputs: object) -> Tensor:
    return model(*args, **inputs).last_hidden_state
