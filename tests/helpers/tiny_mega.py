"""Tiny MEGA models, with weights large enough for attention and averages to matter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import mra_plugin

HEADS = [
    "MegaModel",
    "MegaForCausalLM",
    "MegaForMaskedLM",
    "MegaForSequenceClassification",
    "MegaForMultipleChoice",
    "MegaForTokenClassification",
    "MegaForQuestionAnswering",
]
LAYERS, HEAD_COUNT, VOCABULARY, TOKENS = 2, 1, 64, 40
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 48,
    "ema_projection_size": 4,
    "shared_representation_size": 16,
    "nffn_hidden_size": 40,
    "max_positions": 96,
    "initializer_range": 0.3,
}
CHUNKS = {"use_chunking": True, "chunk_size": 16}
DECODER = {"is_decoder": True, "bidirectional": False}
DROPOUTS = ("dropout", "hidden_dropout", "attention_probs_dropout", "nffn_activation_dropout")
STILL = {f"{name}_prob": 0.0 for name in DROPOUTS}
KEPT_WHOLE, LAYER_LIST = ("Embeddings", "Block"), "layers"


def config(**extra: object) -> mra_plugin.MegaConfig:
    return mra_plugin.MegaConfig(**{**SIZES, **extra})


def make(head: str = "MegaModel", **extra: object) -> nn.Module:
    torch.manual_seed(0)
    if head == "MegaForCausalLM":
        extra = {**DECODER, **extra}
    return getattr(mra_plugin, head)(config(**extra)).eval()


def token_ids(batch: int = 2, tokens: int = TOKENS) -> Tensor:
    return torch.randint(4, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(1))


def padded(batch: int = 2, tokens: int = TOKENS, real: int = 25) -> Tensor:
    """A padding mask whose last row has ``real`` tokens."""
    mask = torch.ones(batch, tokens, dtype=torch.long)
    mask[-1, real:] = 0
    return mask


def inputs_of(head: str, batch: int = 2, tokens: int = TOKENS, real: int = 25) -> dict[str, object]:
    """Tokens and their mask, with an axis of three choices where the head has one; no cache."""
    inputs = {
        "input_ids": token_ids(batch, tokens),
        "attention_mask": padded(batch, tokens, real),
    }
    if head == "MegaForMultipleChoice":
        return {name: x[:, None].repeat(1, 3, 1) for name, x in inputs.items()}
    return {**inputs, **({"use_cache": False} if head == "MegaForCausalLM" else {})}


def labels_of(head: str, batch: int = 2, tokens: int = TOKENS) -> dict[str, Tensor]:
    """What a head is trained with; heads of two labels."""
    per_sequence = torch.arange(batch) % 2
    return {
        "MegaModel": {},
        "MegaForCausalLM": {"labels": token_ids(batch, tokens)},
        "MegaForMaskedLM": {"labels": token_ids(batch, tokens)},
        "MegaForSequenceClassification": {"labels": per_sequence},
        "MegaForMultipleChoice": {"labels": per_sequence},
        "MegaForTokenClassification": {"labels": token_ids(batch, tokens) % 2},
        "MegaForQuestionAnswering": {
            "start_positions": per_sequence,
            "end_positions": per_sequence + 3,
        },
    }[head]


@torch.no_grad()
def hidden(model: nn.Module, *args: object, **inputs: object) -> Tensor:
    return model(*args, **inputs).last_hidden_state


def assert_same(one: Tensor, other: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)
