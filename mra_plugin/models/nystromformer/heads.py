"""The models with a head. `NystromformerModel.forward` explains the arguments that all share."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import (
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from mra_plugin.models.calls import check_inputs, check_span, merge_choices
from mra_plugin.models.heads import (
    MaskedLM,
    MultipleChoice,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)

from .encoder import NystromformerModel, NystromformerPreTrainedModel


class NystromformerForMaskedLM(NystromformerPreTrainedModel, MaskedLM):
    """Predicts the words behind mask tokens."""

    _tied_weights_keys = {  # noqa: RUF012
        "cls.predictions.decoder.bias": "cls.predictions.bias",
        "cls.predictions.decoder.weight": "nystromformer.embeddings.word_embeddings.weight",
    }
    encoder_class = NystromformerModel

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
        encoded = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        return self._predict(encoded, labels, return_dict)


class NystromformerForSequenceClassification(NystromformerPreTrainedModel, SequenceClassification):
    """Classifies, labels or rates whole sequences, ``config.num_labels`` wide."""

    encoder_class = NystromformerModel

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
        encoded = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        return self._classify(encoded, labels, return_dict)


class NystromformerForMultipleChoice(NystromformerPreTrainedModel, MultipleChoice):
    """Says which of several sequences fits."""

    encoder_class = NystromformerModel

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
        encoded = self.base_model(
            merge_choices(input_ids),
            merge_choices(attention_mask),
            merge_choices(token_type_ids),
            merge_choices(position_ids),
            merge_choices(inputs_embeds),
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        return self._choose(encoded, (batch, choices), labels, return_dict)


class NystromformerForTokenClassification(NystromformerPreTrainedModel, TokenClassification):
    """Classifies every token, ``config.num_labels`` wide."""

    encoder_class = NystromformerModel

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
        encoded = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        return self._classify(encoded, labels, return_dict)


class NystromformerForQuestionAnswering(NystromformerPreTrainedModel, QuestionAnswering):
    """Finds the span of tokens that answers a question."""

    encoder_class = NystromformerModel

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
        encoded = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        return self._find(encoded, start_positions, end_positions, return_dict)
