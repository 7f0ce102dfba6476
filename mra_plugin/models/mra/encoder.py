"""The encoder: its layers, the base class of all models, and the model without a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithCrossAttentions

from mra_plugin.adapters.transformers.config_attention import IMPLEMENTATIONS, MRA, attention_for

from .attention import MraAttention
from .configuration import MraConfig
from .embeddings import MraEmbeddings, default_positions


class MraIntermediate(nn.Module):
    """The first half of a layer's feed-forward part."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.intermediate_act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, N, hidden] to [B, N, intermediate]."""
        out: Tensor = self.intermediate_act_fn(self.dense(hidden_states))
        return out


class MraOutput(nn.Module):
    """The second half of a layer's feed-forward part, with its residual connection."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, intermediate: Tensor, hidden_states: Tensor) -> Tensor:
        """[B, N, intermediate] and [B, N, hidden] to [B, N, hidden]."""
        out: Tensor = self.LayerNorm(self.dropout(self.dense(intermediate)) + hidden_states)
        return out


class MraLayer(GradientCheckpointingLayer):
    """Attention, then the feed-forward part, the latter in chunks of tokens where asked for."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.attention = MraAttention(config)
        self.intermediate = MraIntermediate(config)
        self.output = MraOutput(config)

    def forward(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `attention.MraSelfAttention`."""
        attended, weights = self.attention(
            hidden_states, padding_mask, head_mask, output_attentions
        )
        if self.chunk_size_feed_forward:
            chunks = attended.split(self.chunk_size_feed_forward, dim=1)
            return torch.cat([self._feed_forward(chunk) for chunk in chunks], dim=1), weights
        return self._feed_forward(attended), weights

    def _feed_forward(self, attended: Tensor) -> Tensor:
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out


class MraEncoder(nn.Module):
    """The stack of layers."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList([MraLayer(config) for _ in range(config.num_hidden_layers)])

    def forward(
        self,
        hidden_states: Tensor,
        padding_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutputWithCrossAttentions:
        """Runs all layers.

        Args:
            hidden_states: [B, N, hidden].
            padding_mask: bool [B, N], True = a real token.
            head_mask: [layers, H].
            output_attentions: whether to keep every layer's matrices.
            output_hidden_states: whether to keep what goes into every layer, and the last output.

        Returns:
            transformers' output object.
        """
        all_hidden_states, all_attentions = [hidden_states], []
        for index, layer in enumerate(self.layer):
            layer_head_mask = None if head_mask is None else head_mask[index]
            # By position: gradient checkpointing looks for tensors there.
            hidden_states, weights = layer(
                hidden_states, padding_mask, layer_head_mask, output_attentions
            )
            all_hidden_states.append(hidden_states)
            all_attentions.append(weights)
        return BaseModelOutputWithCrossAttentions(
            last_hidden_state=hidden_states,
            hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
        )


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
        self.encoder = MraEncoder(config)
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
        if return_dict is None:
            return_dict = config.return_dict
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
        if attention_mask is not None:
            if attention_mask.shape != (batch, length):
                raise ValueError(
                    f"attention_mask must have shape {(batch, length)}, 1 = a real token, "
                    f"got {tuple(attention_mask.shape)}"
                )
            attention_mask = attention_mask.bool()

        hidden_states = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        output: BaseModelOutputWithCrossAttentions = self.encoder(
            hidden_states,
            attention_mask,
            _every_layer(head_mask, config),
            bool(output_attentions),
            bool(output_hidden_states),
        )
        return output if return_dict else output.to_tuple()


def check_inputs(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, choices: bool = False
) -> torch.Size:
    """Checks that exactly one of the two is there, in its shape, and returns [B, N].

    Args:
        input_ids: [B, N].
        inputs_embeds: [B, N, hidden].
        choices: whether both have an axis of choices after the batch, which is returned too.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "none" if input_ids is None else "both"
        raise ValueError(f"give either input_ids or inputs_embeds, got {given}")
    axes = "[batch, choices, tokens]" if choices else "[batch, tokens]"
    if input_ids is not None:
        name, given_shape, shape = "input_ids", input_ids.shape, input_ids.shape
    else:
        assert inputs_embeds is not None
        name, given_shape, shape = "inputs_embeds", inputs_embeds.shape, inputs_embeds.shape[:-1]
        axes = f"{axes[:-1]}, hidden]"
    if len(shape) != (3 if choices else 2):
        raise ValueError(f"{name} must have shape {axes}, got {tuple(given_shape)}")
    return shape


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
