"""Tiny models of the families that compute attention in their own layers."""

import torch
import transformers as tf
from torch import Tensor, nn

from helpers.tiny_models import token_ids

POSITIONS = 160
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,
    "num_labels": 3,
}
_OWN = {
    "Mra": {"block_per_row": 1},
    "Nystromformer": {"num_landmarks": 16, "segment_means_seq_len": POSITIONS},
}
FAMILIES = sorted(_OWN)
HEADS = [
    "ForMaskedLM",
    "ForMultipleChoice",
    "ForQuestionAnswering",
    "ForSequenceClassification",
    "ForTokenClassification",
]


def make(family: str, head: str = "Model", **extra: object) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(tf, f"{family}Config")(**{**_SIZES, **_OWN[family], **extra})
    return getattr(tf, f"{family}{head}")(config).eval()


def attention_layer(model: nn.Module, index: int = 0) -> nn.Module:
    return model.base_model.encoder.layer[index].attention.self


def in_heads(layer: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as [B, H, N, D]."""
    batch, tokens, _ = hidden_states.shape
    shape = (batch, tokens, layer.num_attention_heads, layer.attention_head_size)
    return tuple(  # type: ignore[return-value]
        projection(hidden_states).view(shape).transpose(1, 2)
        for projection in (layer.query, layer.key, layer.value)
    )


def padded_inputs(tokens: int = 70, real: int = 45) -> dict[str, Tensor]:
    mask = torch.ones(2, tokens, dtype=torch.long)
    mask[-1, real:] = 0
    return {"input_ids": token_ids(2, tokens), "attention_mask": mask}
