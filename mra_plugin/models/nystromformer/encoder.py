"""The base class of all models, and the model without a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

from mra_plugin.adapters.transformers.config_attention import IMPLEMENTATIONS
from mra_plugin.models.calls import as_asked, check_inputs, padding_mask
from mra_plugin.models.post_norm import Embeddings, Encoder, Layer, default_positions

from .attention import NystromformerSelfAttention
from .configuration import NystromformerConfig


class NystromformerEmbeddings(Embeddings):
    """Adds word, position and token type embeddings."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config, keep_positions=False)


class NystromformerLayer(Layer):
    """Nyström attention with its convolution, then the feed-forward part."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config, NystromformerSelfAttention(config))


class NystromformerPreTrainedModel(PreTrainedModel):
    """What all Nyströmformer models share: loading, saving, initialisation."""

    config: NystromformerConfig
    config_class = NystromformerConfig
    base_model_prefix = "nystromformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["NystromformerEmbeddings", "NystromformerLayer"]  # noqa: RUF012
    # Checkpoints of older releases of transformers hold it.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]  # noqa: RUF012
    # Lets mra_plugin.patch in; transformers' own attention stays out, see below.
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, NystromformerEmbeddings):
            initialization.copy_(
                module.position_ids, default_positions(module.position_ids.shape[1])
            )

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
            f"{type(self).__name__} has Nyström attention, by the fields of its config; "
            f"attn_implementation={requested_attention!r} is none that it knows (None, "
            f'"eager" or "mra"). mra_plugin.patch(model, attention=...) puts in another one.'
        )


class NystromformerModel(NystromformerPreTrainedModel):
    """The encoder without a head."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config)
        self.embeddings = NystromformerEmbeddings(config)
        self.encoder = Encoder(
            config, (NystromformerLayer(config) for _ in range(config.num_hidden_layers))
        )
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
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | BaseModelOutputWithCrossAttentions:
        """Encodes a batch of sequences, of any length up to ``config.max_position_embeddings``.

        A sequence's vectors depend on nothing else in the batch. Landmarks and convolution see no
        padding, wherever it lies.

        Args:
            input_ids: tokens, int [B, N].
            attention_mask: [B, N], 1 = a real token, 0 = padding. None: all are real.
            token_type_ids: int [B, N], below ``config.type_vocab_size``. None: all 0.
            position_ids: rows of the position table, int [N], [1, N] or [B, N]. The first token
                of a sequence is row 2. None: the tokens one after the other.
            inputs_embeds: word embeddings [B, N, hidden], in place of ``input_ids``.
            output_attentions: also return, per layer, the matrix [B, heads, N, N] that attention
                stood for, without the convolution; its memory is quadratic in length. None: as the
                config says.
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
        padding = padding_mask(attention_mask, batch, length)
        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        output: BaseModelOutputWithCrossAttentions = self.encoder(
            hidden_states, padding, bool(output_attentions), bool(output_hidden_states)
        )
        return as_asked(output, config, return_dict)  # type: ignore[no-any-return]
