"""What heads compute with, under the names that transformers' checkpoints have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN


class PredictionTransform(nn.Module):
    """What a token goes through before its word is predicted."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.transform_act_fn = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to the same."""
        out: Tensor = self.LayerNorm(self.transform_act_fn(self.dense(hidden_states)))
        return out


class WordPrediction(nn.Module):
    """Predicts words, with weights that are usually tied to the word table."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.transform = PredictionTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        # The decoder's own bias, under the name that checkpoints hold it by as well.
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, N, vocab]."""
        out: Tensor = self.decoder(self.transform(hidden_states))
        return out


class MaskedLMHead(nn.Module):
    """Holds the prediction of words under the name that checkpoints give it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.predictions = WordPrediction(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, N, vocab]."""
        out: Tensor = self.predictions(hidden_states)
        return out


class ClassificationHead(nn.Module):
    """Classifies a sequence by its first token."""

    def __init__(self, config: Any, activation: Callable[[Tensor], Tensor] | None = None) -> None:
        """Takes the activation in between; None means the config's ``hidden_act``."""
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.out_proj = nn.Linear(config.hidden_size, label_count(config))
        self.activation = ACT2FN[config.hidden_act] if activation is None else activation

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, labels]."""
        first = self.activation(self.dense(self.dropout(hidden_states[:, 0])))
        out: Tensor = self.out_proj(self.dropout(first))
        return out


def classifier_dropout(config: Any) -> float:
    """Dropout before a classifier: ``classifier_dropout``, if the family has it and it is set."""
    # Any config holds what it is given beyond its fields, which means nothing.
    has_field = any(field.name == "classifier_dropout" for field in fields(config))
    own = config.classifier_dropout if has_field else None
    return float(config.hidden_dropout_prob if own is None else own)


def label_count(config: Any) -> int:
    """Labels of a config, whose constructor has seen to it that there are some."""
    return int(config.num_labels)
