"""The models with a head. Arguments that all models share are explained at `MraModel.forward`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from .configuration import MraConfig
from .encoder import MraModel, MraPreTrainedModel, check_inputs
from .losses import choice_loss, sequence_loss, span_loss, token_loss


class MraPredictionHeadTransform(nn.Module):
    """What a token goes through before its word is predicted."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.transform_act_fn = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to the same."""
        out: Tensor = self.LayerNorm(self.transform_act_fn(self.dense(hidden_states)))
        return out


class MraLMPredictionHead(nn.Module):
    """Predicts words, with weights that are usually tied to the word table."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.transform = MraPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)
        # The decoder's own bias, under the name that checkpoints hold it by as well.
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, N, vocab]."""
        out: Tensor = self.decoder(self.transform(hidden_states))
        return out


class MraOnlyMLMHead(nn.Module):
    """Holds the prediction head under the name that checkpoints give it."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.predictions = MraLMPredictionHead(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, N, vocab]."""
        out: Tensor = self.predictions(hidden_states)
        return out


class MraForMaskedLM(MraPreTrainedModel):
    """Predicts the words behind mask tokens."""

    _tied_weights_keys = {  # noqa: RUF012
        "cls.predictions.decoder.bias": "cls.predictions.bias",
        "cls.predictions.decoder.weight": "mra.embeddings.word_embeddings.weight",
    }

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config)
        self.mra = MraModel(config)
        self.cls = MraOnlyMLMHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MraLMPredictionHead):
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
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | MaskedLMOutput:
        """Scores every word of the vocabulary at every token.

        Arguments and errors are those of `MraModel.forward`, and further

        - ``labels``: words to predict, int [B, N]; tokens with label -100 do not count.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, N, vocab]; and where asked for
            ``hidden_states`` and ``attentions``.
        """
        encoded = self.mra(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
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
        return output if _wants_object(self, return_dict) else output.to_tuple()


class MraClassificationHead(nn.Module):
    """Classifies a sequence by its first token."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.out_proj = nn.Linear(config.hidden_size, _label_count(config))
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, labels]."""
        first = self.activation(self.dense(self.dropout(hidden_states[:, 0])))
        out: Tensor = self.out_proj(self.dropout(first))
        return out


class MraForSequenceClassification(MraPreTrainedModel):
    """Classifies, labels or rates whole sequences, ``config.num_labels`` wide."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config)
        self.mra = MraModel(config)
        self.classifier = MraClassificationHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | SequenceClassifierOutput:
        """Scores every label for every sequence.

        Arguments and errors are those of `MraModel.forward`, and further

        - ``labels``: see `losses.sequence_loss`, with ``config.problem_type``.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, labels]; and where asked for
            ``hidden_states`` and ``attentions``.
        """
        encoded = self.mra(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
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
        return output if _wants_object(self, return_dict) else output.to_tuple()


class MraForMultipleChoice(MraPreTrainedModel):
    """Says which of several sequences fits."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config)
        self.mra = MraModel(config)
        self.pre_classifier = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | MultipleChoiceModelOutput:
        """Scores every choice.

        Arguments and errors are those of `MraModel.forward`, with

        - ``input_ids``: int [B, choices, N]; masks, types, positions and embeddings likewise have
          an axis of choices after the batch.
        - ``labels``: index of the choice that fits, int [B].

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, choices]; and where asked for
            ``hidden_states`` and ``attentions`` of all choices, with a batch of B * choices.
        """
        batch, choices, _ = check_inputs(input_ids, inputs_embeds, choices=True)
        encoded = self.mra(
            _merge_choices(input_ids),
            _merge_choices(attention_mask),
            _merge_choices(token_type_ids),
            _merge_choices(position_ids),
            head_mask,
            _merge_choices(inputs_embeds),
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
        return output if _wants_object(self, return_dict) else output.to_tuple()


class MraForTokenClassification(MraPreTrainedModel):
    """Classifies every token, ``config.num_labels`` wide."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config)
        self.mra = MraModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, _label_count(config))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | TokenClassifierOutput:
        """Scores every label at every token.

        Arguments and errors are those of `MraModel.forward`, and further

        - ``labels``: int [B, N]; tokens with label -100 and padding do not count.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, N, labels]; and where asked
            for ``hidden_states`` and ``attentions``.
        """
        encoded = self.mra(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels, attention_mask),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if _wants_object(self, return_dict) else output.to_tuple()


class MraForQuestionAnswering(MraPreTrainedModel):
    """Finds the span of tokens that answers a question."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config)
        self.mra = MraModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | QuestionAnsweringModelOutput:
        """Scores every token as the start and as the end of the answer.

        Arguments and errors are those of `MraModel.forward`, and further

        - ``start_positions``: index of the answer's first token, int [B]; indices outside of the
          sequence do not count.
        - ``end_positions``: of its last token, likewise; both or none are given.

        Returns:
            ``loss``, a scalar, if there are positions; ``start_logits`` and ``end_logits``,
            [B, N] each; and where asked for ``hidden_states`` and ``attentions``.
        """
        if (start_positions is None) != (end_positions is None):
            missing = "start_positions" if start_positions is None else "end_positions"
            raise ValueError(f"start_positions and end_positions go together, {missing} is missing")
        encoded = self.mra(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            head_mask,
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
        return output if _wants_object(self, return_dict) else output.to_tuple()


def _wants_object(model: MraPreTrainedModel, return_dict: bool | None) -> bool:
    return bool(model.config.return_dict if return_dict is None else return_dict)


def _merge_choices(x: Tensor | None) -> Tensor | None:
    """[B, choices, N, ...] to [B * choices, N, ...]; positions may lack the first axes."""
    return x if x is None or x.ndim < 3 else x.flatten(0, 1)


def _label_count(config: MraConfig) -> int:
    count = config.num_labels
    assert count is not None  # the config's constructor sees to it
    return count
