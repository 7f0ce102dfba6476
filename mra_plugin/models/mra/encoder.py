"""The encoder: its layers, the base class of all models, and the model without a head."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

from mra_plugin.adapters.transformers.config_attention import MRA, attention_for
from mra_plugin.models.post_norm import Encoder, Layer
from mra_plugin.models.post_norm_models import PostNormModel, PostNormPreTrainedModel

from .attention import MraSelfAttention
from .configuration import MraConfig
from .embeddings import MraEmbeddings


class MraLayer(Layer):
    """MRA attention, then the feed-forward part."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config, MraSelfAttention(config))


class MraPreTrainedModel(PostNormPreTrainedModel):
    """What all MRA models share: loading, saving, initialisation."""

    config: MraConfig
    config_class = MraConfig
    base_model_prefix = "mra"
    _own_attention = "MRA"
    _no_split_modules = ["MraEmbeddings", "MraLayer"]  # noqa: RUF012

    def get_correct_attn_implementation(
        self, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """As all models of its kind; what ``config.mra`` holds is checked whatever is asked for.

        Raises:
            TypeError: a parameter in ``config.mra`` has the wrong type.
            ValueError: the model can't have this attention, or ``config.mra`` is wrong.
        """
        if getattr(self.config, "mra", None) is not None:
            attention_for(self.config, MRA)  # refuses wrong parameters
            self.config.check_attention(MRA, self.config.mra)
        return super().get_correct_attn_implementation(requested_attention, *args, **kwargs)


class MraModel(MraPreTrainedModel, PostNormModel):
    """The encoder without a head."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config)
        self.embeddings = MraEmbeddings(config)
        self.encoder = Encoder(config, (MraLayer(config) for _ in range(config.num_hidden_layers)))
        self.post_init()  # type: ignore[no-untyped-call]

    def _check_length(self, length: int) -> None:
        config = self.config
        if config.position_embedding_type != "absolute" and length > config.max_position_embeddings:
            raise ValueError(
                f"the input has {length} tokens, and the table of distances reaches "
                f"{config.max_position_embeddings} (max_position_embeddings)"
            )

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
        return self._encode(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict,
            _every_layer(head_mask, self.config),
        )


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
