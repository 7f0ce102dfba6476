"""The base class of all models, and the model without a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

from mra_plugin.models.post_norm import Embeddings, Encoder, Layer
from mra_plugin.models.post_norm_models import PostNormModel, PostNormPreTrainedModel

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


class NystromformerPreTrainedModel(PostNormPreTrainedModel):
    """What all Nyströmformer models share: loading, saving, initialisation."""

    config: NystromformerConfig
    config_class = NystromformerConfig
    base_model_prefix = "nystromformer"
    _own_attention = "Nyström"
    _no_split_modules = ["NystromformerEmbeddings", "NystromformerLayer"]  # noqa: RUF012
    # Checkpoints of older releases of transformers hold it.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$"]  # noqa: RUF012


class NystromformerModel(NystromformerPreTrainedModel, PostNormModel):
    """The encoder without a head."""

    def __init__(self, config: NystromformerConfig) -> None:
        super().__init__(config)
        self.embeddings = NystromformerEmbeddings(config)
        self.encoder = Encoder(
            config, (NystromformerLayer(config) for _ in range(config.num_hidden_layers))
        )
        self.post_init()  # type: ignore[no-untyped-call]

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
        return self._encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict,
        )
