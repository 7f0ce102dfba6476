"""The models with a head. `NystromformerModel.forward` explains the arguments that all share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization
from transformers.modeling_outputs import (
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from mra_plugin.models.calls import as_asked, check_inputs, check_span, merge_choices
from mra_plugin.models.head_parts import (
    ClassificationHead,
    MaskedLMHead,
    WordPrediction,
    label_count,
)
from mra_plugin.models.losses import choice_loss, sequence_loss, span_loss, token_loss

from .configuration import NystromformerConfig
from .encoder import NystromformerModel, NystromformerPreTrainedModel


class NystromformerForMaskedLM(NystromformerPreTrainedModel):
    """Predicts the words behind mask tokens."""

    _tied_weights_keys = {  # noqa: RUF012
        "cls.predictions.decoder.bias": "cls.predictions.bias",
        "cls.predictions.decoder.weight": "nystromformer.embeddings.word_embeddings.weight",
    }

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config)
        self.nystromformer = NystromformerModel(config)
        self.cls = MaskedLMHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, WordPrediction):
            initialization.zeros_(module.bias)

    def get_output_embeddings(self) -> nn.Module:
        """The layer that predicts words."""
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the layer that predicts words."""
        self.cls.predictions.decoder = new_embeddings
        self.cls.predictions.bias = new_embeddings.bias

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | MaskedLMOutput:
        """Scores every word of the vocabulary at every token.

        Arguments and errors are those of `NystromformerModel.forward`, and further

        - ``labels``: words to predict, int [B, N]; tokens with label -100 do not count.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, N, vocab]; and where asked for
            ``hidden_states`` and ``attentions``.
        """
        encoded = self.nystromformer(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.cls(encoded.last_hidden_state)
        output = MaskedLMOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class NystromformerForSequenceClassification(NystromformerPreTrainedModel):
    """Classifies, labels or rates whole sequences, ``config.num_labels`` wide."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config)
        self.nystromformer = NystromformerModel(config)
        self.classifier = ClassificationHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | SequenceClassifierOutput:
        """Scores every label for every sequence.

        Arguments and errors are those of `NystromformerModel.forward`, and further

        - ``labels``: see `losses.sequence_loss`, with ``config.problem_type``.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, labels]; and where asked for
            ``hidden_states`` and ``attentions``.
        """
        encoded = self.nystromformer(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(encoded.last_hidden_state)
        loss = None
        if labels is not None:
            loss = sequence_loss(logits, labels, self.config.problem_type)
        output = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class NystromformerForMultipleChoice(NystromformerPreTrainedModel):
    """Says which of several sequences fits."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config)
        self.nystromformer = NystromformerModel(config)
        self.pre_classifier = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | MultipleChoiceModelOutput:
        """Scores every choice.

        Arguments and errors are those of `NystromformerModel.forward`, with

        - ``input_ids``: int [B, choices, N]; masks, types, positions and embeddings likewise have
          an axis of choices after the batch.
        - ``labels``: index of the choice that fits, int [B].

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, choices]; and where asked for
            ``hidden_states`` and ``attentions`` of all choices, with a batch of B * choices.
        """
        batch, choices, _ = check_inputs(input_ids, inputs_embeds, choices=True)
        encoded = self.nystromformer(
            merge_choices(input_ids),
            merge_choices(attention_mask),
            merge_choices(token_type_ids),
            merge_choices(position_ids),
            merge_choices(inputs_embeds),
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        first = torch.relu(self.pre_classifier(encoded.last_hidden_state[:, 0]))
        logits = self.classifier(first).view(batch, choices)
        output = MultipleChoiceModelOutput(
            loss=None if labels is None else choice_loss(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class NystromformerForTokenClassification(NystromformerPreTrainedModel):
    """Classifies every token, ``config.num_labels`` wide."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config)
        self.nystromformer = NystromformerModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, label_count(config))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | TokenClassifierOutput:
        """Scores every label at every token.

        Arguments and errors are those of `NystromformerModel.forward`, and further

        - ``labels``: int [B, N]; tokens with label -100 do not count.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, N, labels]; and where asked
            for ``hidden_states`` and ``attentions``.
        """
        encoded = self.nystromformer(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class NystromformerForQuestionAnswering(NystromformerPreTrainedModel):
    """Finds the span of tokens that answers a question."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config)
        self.nystromformer = NystromformerModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | QuestionAnsweringModelOutput:
        """Scores every token as the start and as the end of the answer.

        Arguments and errors are those of `NystromformerModel.forward`, and further

        - ``start_positions``: index of the answer's first token, int [B]; indices outside of the
          sequence do not count.
        - ``end_positions``: of its last token, likewise; both or none are given.

        Returns:
            ``loss``, a scalar, if there are positions; ``start_logits`` and ``end_logits``,
            [B, N] each; and where asked for ``hidden_states`` and ``attentions``.
        """
        check_span(start_positions, end_positions)
        encoded = self.nystromformer(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        start_logits, end_logits = (
            logits.contiguous() for logits in self.qa_outputs(encoded.last_hidden_state).unbind(-1)
        )
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]
