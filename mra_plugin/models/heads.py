"""Heads of all families: what they are made of, and what follows the encoder.

A family's class names its encoder and has the forward, whose arguments are the encoder's and the
labels. It comes before one of these among the bases of its models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from .calls import as_asked
from .head_parts import ClassificationHead, MaskedLMHead, classifier_dropout, label_count
from .losses import choice_loss, sequence_loss, span_loss, token_loss

Output = TypeVar("Output")


class WithEncoder(PreTrainedModel):
    """A model that holds an encoder under its family's name."""

    encoder_class: type[PreTrainedModel]
    # What the encoder is built with, beside the config.
    encoder_options: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.encoder_class(config, **self.encoder_options))

    def _output(
        self,
        kind: Callable[..., Output],
        encoded: Any,
        return_dict: bool | None,
        **fields: Tensor | None,
    ) -> tuple[Any, ...] | Output:
        output = kind(**fields, hidden_states=encoded.hidden_states, attentions=encoded.attentions)
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class MaskedLM(WithEncoder):
    """Predicts the words behind mask tokens."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.cls = MaskedLMHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        """The layer that predicts words."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the layer that predicts words."""
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    def _predict(
        self, encoded: Any, labels: Tensor | None, return_dict: bool | None
    ) -> tuple[Any, ...] | MaskedLMOutput:
        logits = self.cls(encoded.last_hidden_state)
        loss = None if labels is None else token_loss(logits, labels)
        return self._output(MaskedLMOutput, encoded, return_dict, loss=loss, logits=logits)


class SequenceClassification(WithEncoder):
    """Classifies, labels or rates whole sequences, ``config.num_labels`` wide."""

    head_class: type[ClassificationHead] = ClassificationHead

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.classifier = self.head_class(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def _classify(
        self, encoded: Any, labels: Tensor | None, return_dict: bool | None
    ) -> tuple[Any, ...] | SequenceClassifierOutput:
        logits = self.classifier(encoded.last_hidden_state)
        loss = None
        if labels is not None:
            loss = sequence_loss(logits, labels, self.config.problem_type)
        kind = SequenceClassifierOutput
        return self._output(kind, encoded, return_dict, loss=loss, logits=logits)


class MultipleChoice(WithEncoder):
    """Says which of several sequences fits."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pre_classifier = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def _choose(
        self,
        encoded: Any,
        shape: tuple[int, int],
        labels: Tensor | None,
        return_dict: bool | None,
    ) -> tuple[Any, ...] | MultipleChoiceModelOutput:
        """Choices [B, choices] lie one after the other in ``encoded``."""
        first = torch.relu(self.pre_classifier(encoded.last_hidden_state[:, 0]))
        logits = self.classifier(first).view(shape)
        loss = None if labels is None else choice_loss(logits, labels)
        kind = MultipleChoiceModelOutput
        return self._output(kind, encoded, return_dict, loss=loss, logits=logits)


class TokenClassification(WithEncoder):
    """Classifies every token, ``config.num_labels`` wide."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, label_count(config))
        self.post_init()  # type: ignore[no-untyped-call]

    def _classify(
        self,
        encoded: Any,
        labels: Tensor | None,
        return_dict: bool | None,
        attention_mask: Tensor | None = None,
    ) -> tuple[Any, ...] | TokenClassifierOutput:
        """With a mask, labels at padding don't count."""
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        loss = None if labels is None else token_loss(logits, labels, attention_mask)
        kind = TokenClassifierOutput
        return self._output(kind, encoded, return_dict, loss=loss, logits=logits)


class QuestionAnswering(WithEncoder):
    """Finds the span of tokens that answers a question."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def _find(
        self,
        encoded: Any,
        start_positions: Tensor | None,
        end_positions: Tensor | None,
        return_dict: bool | None,
    ) -> tuple[Any, ...] | QuestionAnsweringModelOutput:
        start_logits, end_logits = (
            logits.contiguous() for logits in self.qa_outputs(encoded.last_hidden_state).unbind(-1)
        )
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        return self._output(
            QuestionAnsweringModelOutput,
            encoded,
            return_dict,
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
        )
