"""The encoder: its layers, the base class of all models, and the model without a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

from mra_plugin.adapters.transformers.config_attention import IMPLEMENTATIONS, MRA, attention_for
from mra_plugin.models.calls import as_asked, check_inputs, padding_mask
from mra_plugin.models.post_norm import Encoder, Layer, default_positions

from .attention import MraSelfAttention
from .configuration import MraConfig
from .embeddings import MraEmbeddings


class MraLayer(Layer):
    """MRA attention, then the feed-forward part."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config, MraSelfAttention(config))


class MraPreTrainedModel(PreTrainedModel):
    """What all MRA models share: loading, saving, initialisation."""

    config: MraConfig
    config_class = MraConfig
    base_model_prefix = "mra"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MraEmbeddings", "MraLayer"]  # noqa: RUF012
    # Lets mra_plugin.patch in; transformers' own attention stays out, see below.
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, MraEmbeddings):
            initialization.copy_(
                module.position_ids, default_positions(module.position_ids.shape[1])
            )

    def get_correct_attn_implementation(
        self, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """Answers transformers, which asks whether this model can have an attention.

        Without a request, or with ``"eager"``, it is MRA attention by the fields of the config;
        so it is with ``"mra"``, except for what ``config.mra`` holds.

        Raises:
            TypeError: a parameter in ``config.mra`` has the wrong type.
            ValueError: the model can't have this attention, or ``config.mra`` is wrong.
        """
        if getattr(self.config, "mra", None) is not None:
            attention_for(self.config, MRA)  # refuses wrong parameters
            self.config.check_attention(MRA, self.config.mra)
        if requested_attention in (None, "eager"):
            return "eager"
        if requested_attention in IMPLEMENTATIONS:
            return super().get_correct_attn_implementation(requested_attention, *args, **kwargs)
        raise ValueError(
            f"{type(self).__name__} has MRA attention, by the fields of its config; "
            f"attn_implementation={requested_attention!r} is not one of its own (None, "
            f'"eager" or "mra"). mra_plugin.patch(model, attention=...) puts in another one.'
        )


class MraModel(MraPreTrainedModel):
    """The encoder without a head."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config)
        self.embeddings = MraEmbeddings(config)
        self.encoder = Encoder(config, (MraLayer(config) for _ in range(config.num_hidden_layers)))
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The word table."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word table."""
        self.embeddings.word_embeddings = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | BaseModelOutputWithCrossAttentions:
        """Encodes a batch of sequences, of any length up to ``config.max_position_embeddings``.

        Args:
            input_ids: tokens, int [B, N].
            attention_mask: [B, N], 1 = a real token, 0 = padding. None: all are real.
            token_type_ids: int [B, N], below ``config.type_vocab_size``. None: all 0.
            position_ids: rows of the position table, int [N], [1, N] or [B, N]. The first token
                of a sequence is row 2. None: the tokens one after the other.
            head_mask: factors of the heads' attention matrices, [heads] for all layers or
                [layers, heads]; 0 takes a head out.
            inputs_embeds: word embeddings [B, N, hidden], in place of ``input_ids``.
            output_attentions: also return, per layer, the matrix [B, heads, N, N] that attention
                stood for; its memory is quadratic in length. None: as the config says.
            output_hidden_states: also return the hidden states before the first and after every
                layer. None: as the config says.
            return_dict: an output object, or with False a plain tuple of what it holds. None: as
                the config says.

        Returns:
            ``last_hidden_state`` [B, N, hidden], and where asked for ``hidden_states`` and
            ``attentions``, tuples of tensors.

        Raises:
            ValueError: both or none of ``input_ids`` and ``inputs_embeds`` are given, the input
                is longer than the position table, or a shape does not fit.
        """
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
        if config.position_embedding_type != "absolute" and length > config.max_position_embeddings:
            raise ValueError(
                f"the input has {length} tokens, and the table of distances reaches "
                f"{config.max_position_embeddings} (max_position_embeddings)"
            )
        padding = padding_mask(attention_mask, batch, length)
        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        output: BaseModelOutputWithCrossAttentions = self.encoder(
            hidden_states,
            padding,
            bool(output_attentions),
            bool(output_hidden_states),
            _every_layer(head_mask, config),
        )
        return as_asked(output, config, return_dict)  # type: ignore[no-any-return]


def _every_layer(head_mask: Tensor | None, config: MraConfig) -> Tensor | None:
    """A head mask for every layer, [layers, heads]."""
    if head_mask is None:
        return None
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    if head_mask.shape not in ((heads,), (layers, heads)):
        raise ValueError(
            f"head_mask must have shape {(heads,)} or {(layers, heads)} [layers, heads], "
            f"got {tuple(head_mask.shape)}"
        )
    return head_mask.expand(layers, heads)
