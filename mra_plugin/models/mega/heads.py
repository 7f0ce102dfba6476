"""The models with a head. Arguments that all models share are explained at `MegaModel.forward`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import (
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from mra_plugin.models.calls import as_asked, check_inputs, check_span, merge_choices
from mra_plugin.models.head_parts import label_count
from mra_plugin.models.losses import choice_loss, sequence_loss, span_loss, token_loss

from .cache import MegaCache, cache_for
from .configuration import MegaConfig
from .encoder import MegaModel, MegaPreTrainedModel

_WORDS = "mega.embedding_layer.word_embeddings.weight"


class MegaForCausalLM(MegaPreTrainedModel, GenerationMixin):
    """Predicts the next word; needs a config with ``is_decoder=True``, ``bidirectional=False``."""

    _tied_weights_keys = {"lm_head.weight": _WORDS}  # noqa: RUF012
    # Moving averages can't be taken back, which assisted generation would need.
    _is_stateful = True

    def __init__(self, config: MegaConfig) -> None:
        if not config.is_decoder:
            raise ValueError(
                "MegaForCausalLM needs config.is_decoder=True and bidirectional=False; an encoder "
                "sees the words that it should predict"
            )
        super().__init__(config)
        self.mega = MegaModel(config, add_pooling_layer=False)
        self.dense = _hidden_dense(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        """The layer that predicts words."""
        head: nn.Module = self.lm_head
        return head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replaces the layer that predicts words."""
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: MegaCache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
    ) -> tuple[Any, ...] | CausalLMOutputWithCrossAttentions:
        """Scores every word of the vocabulary as the one behind every token.

        Arguments and errors are those of `MegaModel.forward`, and further

        - ``labels``: words, int [B, L], of which each is predicted at the token before; tokens with
          label -100 do not count. With labels there is no cache.
        - ``logits_to_keep``: scores at the last so many tokens alone, or at those whose indices it
          is; 0 means all.

        Returns:
            ``loss``, a scalar, if there are labels; ``logits`` [B, L, vocab]; and where asked for
            ``past_key_values``, ``hidden_states``, ``attentions`` and ``cross_attentions``.
        """
        read = self.mega(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            encoder_hidden_states,
            encoder_attention_mask,
            past_key_values,
            use_cache if labels is None else False,
            output_attentions,
            output_hidden_states,
            return_dict=True,
        )
        hidden = read.last_hidden_state
        if labels is None:
            kept = (
                slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            )
            hidden = hidden[:, kept]
        logits = self.lm_head(_through(self.dense, hidden))
        output = CausalLMOutputWithCrossAttentions(
            loss=None if labels is None else token_loss(logits[:, :-1], labels[:, 1:]),
            logits=logits,
            past_key_values=read.past_key_values,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
            cross_attentions=read.cross_attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """Gives ``generate`` a cache of this model's kind."""
        kind = generation_config.cache_implementation
        if kind not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation must be left out for MEGA, which has a cache of its own, "
                f"got {kind!r}"
            )
        if generation_config.use_cache is not False:
            given = model_kwargs.get("past_key_values")
            model_kwargs["past_key_values"] = cache_for(self.config, given)


class MegaForMaskedLM(MegaPreTrainedModel):
    """Predicts the words behind mask tokens."""

    _tied_weights_keys = {"mlm_head.weight": _WORDS}  # noqa: RUF012

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.mega = MegaModel(config, add_pooling_layer=False)
        self.dense = _hidden_dense(config)
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
        read = self.mega(
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
        logits = self.mlm_head(_through(self.dense, read.last_hidden_state))
        output = MaskedLMOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class MegaClassificationHead(nn.Module):
    """Classifies a sequence by its first token."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.out_proj = nn.Linear(config.hidden_size, label_count(config))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, L, D] to [B, labels]."""
        first = torch.tanh(self.dense(self.dropout(hidden_states[:, 0])))
        out: Tensor = self.out_proj(self.dropout(first))
        return out


class MegaForSequenceClassification(MegaPreTrainedModel):
    """Classifies, labels or rates whole sequences, ``config.num_labels`` wide."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.mega = MegaModel(config, add_pooling_layer=False)
        self.classifier = MegaClassificationHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

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
        read = self.mega(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(read.last_hidden_state)
        loss = None
        if labels is not None:
            loss = sequence_loss(logits, labels, self.config.problem_type)
        output = SequenceClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class MegaForMultipleChoice(MegaPreTrainedModel):
    """Rates the choices of each question."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.mega = MegaModel(config)
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
        read = self.mega(
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
        output = MultipleChoiceModelOutput(
            loss=None if labels is None else choice_loss(logits, labels),
            logits=logits,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class MegaForTokenClassification(MegaPreTrainedModel):
    """Classifies every token, ``config.num_labels`` wide."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.mega = MegaModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, label_count(config))
        self.post_init()  # type: ignore[no-untyped-call]

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
        read = self.mega(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.classifier(self.dropout(read.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else token_loss(logits, labels),
            logits=logits,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


class MegaForQuestionAnswering(MegaPreTrainedModel):
    """Finds the span of tokens that answers a question."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__(config)
        self.mega = MegaModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()  # type: ignore[no-untyped-call]

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
        read = self.mega(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            use_cache=False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        start_logits, end_logits = (
            logits.contiguous() for logits in self.qa_outputs(read.last_hidden_state).unbind(-1)
        )
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
        )
        return as_asked(output, self.config, return_dict)  # type: ignore[no-any-return]


def _hidden_dense(config: MegaConfig) -> nn.Linear | None:
    size = config.hidden_size
    return nn.Linear(size, size) if config.add_lm_hidden_dense_layer else None


def _through(dense: nn.Linear | None, hidden_states: Tensor) -> Tensor:
    return hidden_states if dense is None else torch.tanh(dense(hidden_states))


def _classifier_dropout(config: MegaConfig) -> float:
    given = config.classifier_dropout
    return config.hidden_dropout_prob if given is None else given
