"""The models with a head. Arguments that all models share are explained at `MegaModel.forward`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import (
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from mra_plugin.models.calls import check_inputs, check_span, merge_choices
from mra_plugin.models.head_parts import ClassificationHead
from mra_plugin.models.heads import (
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
    WithEncoder,
)
from mra_plugin.models.losses import choice_loss, token_loss

from .configuration import MegaConfig
from .encoder import MegaModel, MegaPreTrainedModel

WORDS = "mega.embedding_layer.word_embeddings.weight"
NO_POOLER = {"add_pooling_layer": False}


class MegaForMaskedLM(MegaPreTrainedModel, WithEncoder):
    """Predicts the words behind mask tokens."""

    _tied_weights_keys = {"mlm_head.weight": WORDS}  # noqa: RUF012
    encoder_class = MegaModel
    encoder_options = NO_POOLER

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.dense = hidden_dense(config)
        self.mlm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        """The layer that predicts words."""
        return self.mlm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the layer that predicts words."""
        self.mlm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | MaskedLMOutput:
        """Scores every word of the vocabulary at every token.

        Arguments and errors are those of `MegaModel.forward`, and further

        - ``labels``: words to predict, int [B, L]; tokens with label -100 do not count.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, L, vocab]; and where asked for
            ``hidden_states`` and ``attentions``.
        """
        read = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.mlm_head(through(self.dense, read.last_hidden_state))
        loss = None if labels is None else token_loss(logits, labels)
        return self._output(MaskedLMOutput, read, return_dict, loss=loss, logits=logits)


class MegaClassificationHead(ClassificationHead):
    """Classifies a sequence by its first token, with tanh in between."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config, torch.tanh)


class MegaForSequenceClassification(MegaPreTrainedModel, SequenceClassification):
    """Classifies, labels or rates whole sequences, ``config.num_labels`` wide."""

    encoder_class = MegaModel
    encoder_options = NO_POOLER
    head_class = MegaClassificationHead

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | SequenceClassifierOutput:
        """Scores every label for every sequence.

        Arguments and errors are those of `MegaModel.forward`, and further

        - ``labels``: a class per sequence, int [B]; or numbers, [B] or [B, labels]; see
          ``config.problem_type``. None there goes by the labels of each call.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, labels]; and where asked for
            ``hidden_states`` and ``attentions``.
        """
        read = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        return self._classify(read, labels, return_dict)


class MegaForMultipleChoice(MegaPreTrainedModel, WithEncoder):
    """Rates the choices of each question, by what the pooler makes of them."""

    encoder_class = MegaModel

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | MultipleChoiceModelOutput:
        """Scores every choice. The order of the arguments is that of transformers 4.

        Arguments and errors are those of `MegaModel.forward`, with

        - ``input_ids``: int [B, choices, L]; mask, types and embeddings likewise have an axis of
          choices after the batch.
        - ``labels``: index of the choice that fits, int [B].

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, choices]; and where asked for
            ``hidden_states`` and ``attentions`` of all choices, with a batch of B * choices.
        """
        batch, choices, _ = check_inputs(input_ids, inputs_embeds, choices=True)
        read = self.base_model(
            merge_choices(input_ids),
            merge_choices(attention_mask),
            merge_choices(token_type_ids),
            merge_choices(inputs_embeds),
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(read.pooler_output)).view(batch, choices)
        loss = None if labels is None else choice_loss(logits, labels)
        return self._output(MultipleChoiceModelOutput, read, return_dict, loss=loss, logits=logits)


class MegaForTokenClassification(MegaPreTrainedModel, TokenClassification):
    """Classifies every token, ``config.num_labels`` wide."""

    encoder_class = MegaModel
    encoder_options = NO_POOLER

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | TokenClassifierOutput:
        """Scores every label at every token.

        Arguments and errors are those of `MegaModel.forward`, and further

        - ``labels``: int [B, L]; tokens with label -100 do not count.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, L, labels]; and where asked
            for ``hidden_states`` and ``attentions``.
        """
        read = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        return self._classify(read, labels, return_dict)


class MegaForQuestionAnswering(MegaPreTrainedModel, QuestionAnswering):
    """Finds the span of tokens that answers a question."""

    encoder_class = MegaModel
    encoder_options = NO_POOLER

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | QuestionAnsweringModelOutput:
        """Scores every token as the start and as the end of the answer.

        Arguments and errors are those of `MegaModel.forward`, and further

        - ``start_positions``: index of the answer's first token, int [B]; indices outside of the
          sequence do not count.
        - ``end_positions``: of its last token, likewise; both or none are given.

        Returns:
            ``loss``, a scalar, if there are positions; ``start_logits`` and ``end_logits``,
            [B, L] each; and where asked for ``hidden_states`` and ``attentions``.
        """
        check_span(start_positions, end_positions)
        read = self.base_model(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        return self._find(read, start_positions, end_positions, return_dict)


def hidden_dense(config: MegaConfig) -> nn.Linear | None:
    """What stands before the vocabulary, if anything does."""
    size = config.hidden_size
    return nn.Linear(size, size) if config.add_lm_hidden_dense_layer else None


def through(dense: nn.Linear | None, hidden_states: Tensor) -> Tensor:
    """[B, L, D] to the same, by what `hidden_dense` gave."""
    return hidden_states if dense is None else torch.tanh(dense(hidden_states))
