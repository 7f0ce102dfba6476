"""Searching a collection with the demo's encoder, whose attention differs from method to method.

Queries are short, and exact attention reads them for every method. A text's vector is the mean of
its tokens' outputs, normalised, as the model was trained for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from cases import CannotRunError
from documents import Half, documents
from interleaved import Step
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel

import mra_plugin
from mra_plugin.adapters.transformers.modules import copy_with_same_weights
from mra_plugin.encoders.closeness import hidden_states
from mra_plugin.encoders.demo import demo_model
from mra_plugin.encoders.loading import load_encoder
from mra_plugin.encoders.stretching import stretch
from mra_plugin.encoders.text import Tokens, tokenize
from mra_plugin.errors import UserError
from mra_plugin.ops import preset_options

EXACT = "exact"
LONGEST = 4096
# Tokens of the documents that are read together.
_BATCH = 4096

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "mra": ("mra", {**preset_options("paper"), "block_per_row": 8}),
    "mra close": ("mra", preset_options("close")),
    "nystrom 64": ("nystrom", {"num_landmarks": 64}),
    "nystrom 256": ("nystrom", {"num_landmarks": 256}),
}


@dataclass(frozen=True)
class Search:
    """A collection at a length, and what exact attention makes of it.

    Attributes:
        batches: token ids of the documents, [B, N] each; those of full length come first.
        full: documents that are cut to the length; the others are shorter, and whole.
        queries: their vectors, [Q, C], in the order of the documents.
        vectors: of the documents, [Q, C].
        step: exact attention reads the first batch.
    """

    batches: list[Tensor]
    full: int
    queries: Tensor
    vectors: Tensor
    step: Step


@lru_cache(maxsize=1)
def encoder(device: torch.device, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    """The demo's encoder with exact attention, stretched to the greatest length; its tokenizer.

    Raises:
        CannotRunError: it is not installed.
    """
    try:
        model, tokenizer = load_encoder(demo_model(), device, dtype)
    except UserError as error:
        raise CannotRunError(str(error)) from None
    return stretch(model, tokenizer, LONGEST), tokenizer


def encoder_with(method: str, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The encoder with the attention of one of `METHODS`, or exact."""
    model, _ = encoder(device, dtype)
    if method == EXACT:
        return model
    attention, params = METHODS[method]
    return mra_plugin.patch(copy_with_same_weights(model), attention=attention, **params)


@lru_cache(maxsize=1)
def exact_search(
    collection: str, half: Half, tokens: int, device: torch.device, dtype: torch.dtype
) -> Search:
    """Searches with exact attention.

    Of the standard library, the documents are those that fill the greatest length, so that they are
    the same at every length. Of the language reference, they are all topics.

    Args:
        collection: one of `documents.COLLECTIONS`.
        half: of the collection.
        tokens: length that documents are cut to, special tokens included; at most `LONGEST`.
        device: where to run.
        dtype: of the encoder.

    Raises:
        CannotRunError: encoder or documents are missing.
    """
    model, tokenizer = encoder(device, dtype)
    found = [(one, tokenize(tokenizer, one.text, tokens)) for one in documents(collection, half)]
    if collection == "standard library":
        found = [one for one in found if len(one[1]) >= LONGEST]
    found.sort(key=lambda one: len(one[1]) < tokens)
    full = sum(len(text) >= tokens for _, text in found)
    batches = batches_of([text for _, text in found], tokens, device)
    queries = [tokenize(tokenizer, one.query, tokens) for one, _ in found]
    alone = [torch.tensor([query.cut(len(query))], device=device) for query in queries]
    return Search(
        batches=batches,
        full=full,
        queries=vectors(model, alone),
        vectors=vectors(model, batches),
        step=Step(reading(model, batches[0]), device),
    )


def batches_of(texts: list[Tokens], tokens: int, device: torch.device) -> list[Tensor]:
    """Token ids, [B, N] each, in the order of the texts; only texts of one length come together.

    Args:
        texts: those of at least ``tokens`` tokens first.
        tokens: length that they are cut to.
        device: where to put them.
    """
    together = max(1, _BATCH // tokens)
    full = [text.cut(tokens) for text in texts if len(text) >= tokens]
    groups = [full[at : at + together] for at in range(0, len(full), together)]
    groups += [[text.cut(len(text))] for text in texts if len(text) < tokens]
    return [torch.tensor(group, device=device) for group in groups]


def vectors(model: PreTrainedModel, batches: list[Tensor]) -> Tensor:
    """One normalised vector for each text, [texts, C].

    Args:
        model: an encoder.
        batches: token ids without padding, [B, N] each.
    """
    return torch.cat([reading(model, ids)() for ids in batches])


def reading(model: PreTrainedModel, ids: Tensor) -> Callable[[], Tensor]:
    """Reads a batch of token ids, [B, N], and gives its vectors, [B, C]."""
    return partial(_read, model, ids)


def _read(model: PreTrainedModel, ids: Tensor) -> Tensor:
    return normalize(hidden_states(model, ids, torch.ones_like(ids)).float().mean(1), dim=-1)
