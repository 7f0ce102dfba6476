"""What the models of the families on `post_norm` share, with a head and without."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

from mra_plugin.adapters.transformers.config_attention import IMPLEMENTATIONS

from .calls import as_asked, check_inputs, padding_mask
from .head_parts import WordPrediction
from .post_norm import Embeddings, Encoder, default_positions


class PostNormPreTrainedModel(PreTrainedModel):
    """Initialisation, and which attention a model can have."""

    supports_gradient_checkpointing = True
    # Lets mra_plugin.patch in; transformers' own attention stays out, see below.
    _supports_attention_backend = True
    # What the attention of the config's fields is called.
    _own_attention: str

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, Embeddings):
            initialization.copy_(
                module.position_ids, default_positions(module.position_ids.shape[1])
            )
        if isinstance(module, WordPrediction):
            initialization.zeros_(module.bias)

    def get_correct_attn_implementation(
        self, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """Answers transformers, which asks whether this model can have an attention.

        Without a request, or with ``"eager"``, it is that of the config's fields; ``"mra"`` is MRA
        attention by what ``config.mra`` holds.

        Raises:
            TypeError: a parameter of the attention in the config has the wrong type.
            ValueError: the model can't have this attention, or its parameters are wrong.
        """
        if requested_attention in (None, "eager"):
            return "eager"
        if requested_attention in IMPLEMENTATIONS:
            return super().get_correct_attn_implementation(requested_attention, *args, **kwargs)
        raise ValueError(
            f"{type(self).__name__} has {self._own_attention} attention, by the fields of its "
            f"config; attn_implementation={requested_attention!r} is none that it knows (None, "
            f'"eager" or "mra"). mra_plugin.patch(model, attention=...) puts in another one.'
        )


class PostNormModel(PostNormPreTrainedModel):
    """An encoder without a head, which has ``embeddings`` and ``encoder``."""

    embeddings: Embeddings
    encoder: Encoder

    def get_input_embeddings(self) -> nn.Module:
        """The word table."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word table."""
        self.embeddings.word_embeddings = value  # type: ignore[assignment]

    def _check_length(self, length: int) -> None:
        """Refuses an input that is longer than all that the model knows of positions."""

    def _encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        position_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
        return_dict: bool | None,
        head_mask: Tensor | None = None,
    ) -> tuple[Any, ...] | BaseModelOutputWithCrossAttentions:
        """What the forward of a family computes and explains; ``head_mask`` is [layers, H]."""
        config = self.config
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        batch, length = check_inputs(input_ids, inputs_embeds)
        if input_ids is not None:
            self.warn_if_padding_and_no_attention_mask(  # type: ignore[no-untyped-call]
                input_ids, attention_mask
            )
        self._check_length(length)
        padding = padding_mask(attention_mask, batch, length)
        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        output: BaseModelOutputWithCrossAttentions = self.encoder(
            hidden_states, padding, bool(output_attentions), bool(output_hidden_states), head_mask
        )
        return as_asked(output, config, return_dict)  # type: ignore[no-any-return]
