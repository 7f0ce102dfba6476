"""The decoder with a head, which predicts and generates. Arguments: see `MegaModel.forward`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from mra_plugin.models.heads import WithEncoder
from mra_plugin.models.losses import token_loss

from .cache import MegaCache, cache_for
from .configuration import MegaConfig
from .encoder import MegaModel, MegaPreTrainedModel
from .heads import NO_POOLER, WORDS, hidden_dense, through


class MegaForCausalLM(MegaPreTrainedModel, WithEncoder, GenerationMixin):
    """Predicts the next word; needs a config with ``is_decoder=True``, ``bidirectional=False``."""

    _tied_weights_keys = {"lm_head.weight": WORDS}  # noqa: RUF012
    # Moving averages can't be taken back, which assisted generation would need.
    _is_stateful = True
    encoder_class = MegaModel
    encoder_options = NO_POOLER

    def __init__(self, config: MegaConfig) -> None:
        if not config.is_decoder:
            raise ValueError(
                "MegaForCausalLM needs config.is_decoder=True and bidirectional=False; an encoder "
                "sees the words that it should predict"
            )
        super().__init__(config)
        self.dense = hidden_dense(config)
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
        read = self.base_model(
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
        logits = self.lm_head(through(self.dense, hidden))
        return self._output(
            CausalLMOutputWithCrossAttentions,
            read,
            return_dict,
            loss=None if labels is None else token_loss(logits[:, :-1], labels[:, 1:]),
            logits=logits,
            past_key_values=read.past_key_values,
            cross_attentions=read.cross_attentions,
        )

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
