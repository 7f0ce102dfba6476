"""The base class of all models, and the model without a head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from transformers.utils import logging

from mra_plugin.adapters.transformers.config_attention import (
    IMPLEMENTATIONS,
    attention_for,
)
from mra_plugin.models.calls import as_asked, check_inputs
from mra_plugin.ops.real_tokens import hides_nothing

from .cache import MegaCache, cache_for
from .configuration import MegaConfig
from .embeddings import MegaEmbeddings
from .gated_attention import OWN, Before, MegaMovingAverageGatedAttention
from .layer import MegaBlock, OfEncoder
from .moving_average import MegaMultiDimensionDampedEma
from .norms import MegaScaleNorm
from .positions import MegaRotaryRelativePositionalBias, MegaSimpleRelativePositionalBias

logger = logging.get_logger(__name__)


class MegaPooler(nn.Module):
    """Makes one vector of a sequence, from its first token."""

    def __init__(self, config: MegaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, L, D] to [B, D]."""
        return torch.tanh(self.dense(hidden_states[:, 0]))


class MegaPreTrainedModel(PreTrainedModel):
    """What all MEGA models share: loading, saving, initialisation."""

    config: MegaConfig
    config_class = MegaConfig
    base_model_prefix = "mega"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MegaEmbeddings", "MegaBlock"]  # noqa: RUF012
    # Lets mra_plugin.patch in.
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        config, spread = self.config, self.config.initializer_range
        if isinstance(module, MegaMultiDimensionDampedEma):
            initialization.normal_(module.damping_factor, 0.0, config.ema_delta_alpha_range)
            initialization.normal_(module.decay_factor, 0.0, config.ema_delta_alpha_range)
            signs = torch.ones(config.ema_projection_size, 1)
            signs[1::2] = -1
            noise = torch.randn(module.ema_expansion_matrix.shape) * config.ema_beta_range
            initialization.copy_(module.ema_expansion_matrix, signs + noise)
            initialization.normal_(
                module.kernel_projection_matrix, 0.0, config.ema_gamma_omega_range
            )
            initialization.normal_(module.residual_weight, 0.0, config.ema_gamma_omega_range)
        elif isinstance(module, MegaMovingAverageGatedAttention):
            initialization.normal_(module.qk_weight, 0.0, spread)
            initialization.zeros_(module.qk_bias)
        elif isinstance(module, MegaSimpleRelativePositionalBias):
            initialization.normal_(module.rel_pos_bias, 0.0, spread)
        elif isinstance(module, MegaRotaryRelativePositionalBias):
            initialization.normal_(module.alpha, 0.0, spread)
            initialization.normal_(module.b_param, 0.0, spread)
            initialization.zeros_(module._float_tensor)
        elif isinstance(module, MegaScaleNorm) and module.scalar is not None:
            initialization.ones_(module.scalar)

    def get_correct_attn_implementation(
        self, requested_attention: str | None, *args: Any, **kwargs: Any
    ) -> str:
        """Answers transformers, which asks whether this model can have an attention.

        Without a request, or with ``"eager"`` or ``"sdpa"``, it is MEGA's own, which goes by way of
        PyTorch's fused attention where it can.

        Raises:
            TypeError: a parameter in the config has the wrong type.
            ValueError: the model can't have this attention, or its parameters are wrong.
        """
        if requested_attention in (None, *OWN):
            # One name for it, as transformers gives out no matrices where it reads "sdpa".
            return OWN[0]
        if requested_attention in IMPLEMENTATIONS:
            found: str = super().get_correct_attn_implementation(
                requested_attention, *args, **kwargs
            )
            self.config.check_attention(attention_for(self.config, found).name, {})
            return found
        raise ValueError(
            f"{type(self).__name__} has MEGA's attention, which goes by way of PyTorch's fused "
            f"attention where it can; attn_implementation={requested_attention!r} is not one of "
            'its own (None, "eager" or "sdpa"). mra_plugin.patch(model, attention=...) puts in '
            "another one."
        )

    @property
    def kind_of_positions(self) -> str:
        """What reports call them."""
        return self.config.relative_positional_bias

    def why_not_longer(self) -> str | None:
        """Why the model can't read more tokens than it does, or None if it can."""
        config = self.config
        if config.relative_positional_bias == "simple" and not config.use_chunking:
            return (
                "its positions are a table of the distances that it was trained with "
                "(relative_positional_bias='simple'); rotary positions and chunks know no limit"
            )
        return None

    def read_longer(self, length: int) -> None:
        """Has the model take ``length`` tokens for its limit, which short inputs don't notice."""
        self.config.max_positions = length
        for module in self.modules():
            if isinstance(module, MegaSimpleRelativePositionalBias):
                # Rows beyond those of a chunk, which stand in front, are never read.
                module.fill_up(2 * length - 1)


class MegaModel(MegaPreTrainedModel):
    """The model without a head: an encoder, or by its config a decoder."""

    def __init__(self, config: MegaConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embedding_layer = MegaEmbeddings(config)
        self.layers = nn.ModuleList([MegaBlock(config) for _ in range(config.num_hidden_layers)])
        self.pooler = MegaPooler(config) if add_pooling_layer else None
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """The word table."""
        return self.embedding_layer.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the word table."""
        self.embedding_layer.word_embeddings = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: MegaCache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> tuple[Any, ...] | BaseModelOutputWithPoolingAndCrossAttentions:
        """Reads a batch of sequences.

        Args:
            input_ids: tokens, int [B, L].
            attention_mask: [B, L], 1 = a real token, 0 = padding, of any type; behind a cache of T
                tokens also [B, T + L], of which the last L count, as the cache remembers the
                others. None: all are real. Padding may stand anywhere. In front and behind it
                changes nothing; between tokens it takes part as a position.
            token_type_ids: int [B, L], below ``config.type_vocab_size``. None: all 0. Without a
                table of types they have no effect.
            inputs_embeds: word embeddings [B, L, D], in place of ``input_ids``.
            encoder_hidden_states: [B, Ls, D], what the cross attention of a decoder reads. A cache
                holds what was made of them, and they may be left out behind one.
            encoder_attention_mask: [B, Ls] or [1, Ls], likewise 1 = a real token.
            past_key_values: the cache that a decoder goes on from; tokens in any number follow it.
                It is changed in place, unless ``use_cache`` is False.
            use_cache: whether a decoder gives a cache; encoders have none. None: as the config
                says, and none in training.
            output_attentions: also return, per layer, the matrices [B, chunks, C, C] that
                attention stood for, where C is the length of a chunk; without chunks it is one of
                L. Behind a cache it is [B, 1, L, T + L] with the T tokens whose keys are there.
                Those of laplace and relu2 do not sum to 1. None: as the config says.
            output_hidden_states: also return the hidden states before the first and after every
                layer. None: as the config says.
            return_dict: an output object, or with False a plain tuple of what it holds. None: as
                the config says.

        Returns:
            ``last_hidden_state`` [B, L, D]; ``pooler_output`` [B, D], if there is a pooler; and
            where asked for ``past_key_values``, ``hidden_states``, ``attentions`` and
            ``cross_attentions``.

        Raises:
            TypeError: ``past_key_values`` is of another kind.
            ValueError: both or none of ``input_ids`` and ``inputs_embeds`` are given, the input
                is longer than the table of distances, or a shape does not fit.
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
        keep = self._keeps(use_cache)
        if past_key_values is not None and not config.is_decoder:
            raise ValueError("past_key_values are of a decoder, and config.is_decoder is False")
        cache = cache_for(config, past_key_values) if keep or past_key_values is not None else None
        read = 0 if cache is None else cache.get_seq_length()
        self._check_length(read + length)
        padding = _padding(attention_mask, batch, length, read)
        x = self.embedding_layer(input_ids, token_type_ids, inputs_embeds)
        real, leading = padding, None
        if cache is not None:
            real, leading = cache.padding_with(padding, batch, length, x.device)
        elif padding is not None and config.add_cross_attention:
            leading = (padding.cumsum(-1) == 0).sum(-1)
        of_encoder = self._of_encoder(
            batch, encoder_hidden_states, encoder_attention_mask, cache, read, leading
        )

        all_hidden_states, all_attentions, all_crosses = [x], [], []
        for index, layer in enumerate(self.layers):
            before = None
            if cache is not None:
                before = Before(cache.layers[index], read, real, leading, keep)
            # By position: gradient checkpointing looks for tensors there.
            x, weights, cross_weights = layer(
                x, padding, before, of_encoder, bool(output_attentions)
            )
            all_hidden_states.append(x)
            all_attentions.append(weights)
            all_crosses.append(cross_weights)
        if cache is not None and keep:
            cache.note_padding(real, leading)
        crosses = output_attentions and of_encoder is not None
        output = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=x,
            pooler_output=None if self.pooler is None else self.pooler(x),
            past_key_values=cache if keep else None,
            hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
            cross_attentions=tuple(all_crosses) if crosses else None,
        )
        return as_asked(output, config, return_dict)  # type: ignore[no-any-return]

    def _keeps(self, use_cache: bool | None) -> bool:
        """Whether a call gives a cache."""
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if not (use_cache and self.config.is_decoder):
            return False
        checkpointing = self.training and any(layer.gradient_checkpointing for layer in self.layers)
        if checkpointing:
            logger.warning_once(
                "gradient checkpointing gives no cache: use_cache is taken for False"
            )
        return not checkpointing

    def _check_length(self, tokens: int) -> None:
        config = self.config
        table = config.relative_positional_bias == "simple" and not config.in_chunks
        if table and tokens > config.max_positions:
            raise ValueError(
                f"the sequence has {tokens} tokens, and the table of distances reaches "
                f"{config.max_positions} (max_positions)"
            )

    def _of_encoder(
        self,
        batch: int,
        states: Tensor | None,
        mask: Tensor | None,
        cache: MegaCache | None,
        read: int,
        leading: Tensor | None,
    ) -> OfEncoder | None:
        config = self.config
        if not config.add_cross_attention:
            if states is not None:
                raise ValueError(
                    "encoder_hidden_states are given to a model without cross attention "
                    "(config.add_cross_attention)"
                )
            return None
        held = None if cache is None else cache.layers[0].cross_keys
        if states is None and held is None:
            raise ValueError("a model with cross attention needs encoder_hidden_states")
        size = states.shape[1] if states is not None else held.shape[2]  # type: ignore[union-attr]
        self._check_length(size)
        if mask is not None:
            if mask.ndim != 2 or mask.shape[0] not in (1, batch) or mask.shape[1] != size:
                raise ValueError(
                    f"encoder_attention_mask must have shape {(batch, size)}, 1 = a real token, "
                    f"got {tuple(mask.shape)}"
                )
            mask = mask.bool().expand(batch, -1)
        position: Tensor | int = read if leading is None else read - leading
        return OfEncoder(states, mask, position)


def _padding(mask: Tensor | None, batch: int, length: int, read: int) -> Tensor | None:
    """The new tokens' part of a mask, bool [B, L], or None if all are known to be real."""
    if mask is None:
        return None
    if mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] not in (length, read + length):
        behind = f" or {(batch, read + length)}" if read else ""
        raise ValueError(
            f"attention_mask must have shape {(batch, length)}{behind}, 1 = a real token, "
            f"got {tuple(mask.shape)}"
        )
    padding = mask[:, -length:].bool() if length else mask[:, :0].bool()
    # Attention without a mask is faster.
    return None if hides_nothing(padding) else padding
