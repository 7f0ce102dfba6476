"""Whole encoder layers of transformers' models, at RoBERTa-base's size, with random weights.

Each model is built with a single layer and its own defaults otherwise, and reads one sequence as
users run it; what its encoder hands to the layer is what the benchmark hands to it again. So masks
and paddings are the model's own. Dropout is off everywhere: with it, PyTorch's exact attention
leaves its fast path on a CPU, and MRA attention has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from attention_methods import block_per_row
from cases import CannotRunError, Direction
from torch import Tensor, nn
from transformers import (
    BigBirdConfig,
    BigBirdModel,
    LongformerConfig,
    LongformerModel,
    NystromformerConfig,
    NystromformerModel,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

import mra_plugin
from mra_plugin.registry import get_attention

REFERENCE = "roberta exact"
HIDDEN, HEADS, FEED_FORWARD = 768, 12, 3072


@dataclass(frozen=True)
class Layer:
    """A layer, with all that its encoder calls it with.

    Attributes:
        module: the layer.
        args: what it is called with; the first are the hidden states, [1, N, 768].
        kwargs: likewise.
        params: settings that make its attention what it is.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    params: dict[str, Any]

    def run(self, direction: Direction) -> Tensor:
        """Runs the layer once; for training, also computes the gradients of input and weights."""
        training = direction == "training"
        self.module.train(training)
        hidden = self.args[0].detach().requires_grad_(training)
        with torch.set_grad_enabled(training):
            out = self.module(hidden, *self.args[1:], **self.kwargs)
            out = out if isinstance(out, Tensor) else out[0]
            if training:
                # Longformer's projections for global attention have nothing to do here.
                wanted = [hidden, *self.module.parameters()]
                torch.autograd.grad(out, wanted, torch.ones_like(out), allow_unused=True)
        return out.detach()


def build_layer(method: str, tokens: int, device: torch.device, dtype: torch.dtype) -> Layer:
    """The layer of a model, ready to run at a length.

    Args:
        method: one of `METHODS`.
        tokens: N.
        device: where to run.
        dtype: of weights and hidden states.

    Raises:
        CannotRunError: the model would not use its own attention at this length.
    """
    torch.manual_seed(0)
    model, params = METHODS[method](tokens)
    model = model.to(device, dtype).eval()
    layer = model.encoder.layer[0]
    handed: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        handed.append((args, kwargs))

    hook = layer.register_forward_pre_hook(keep, with_kwargs=True)
    embeddings = torch.randn(1, tokens, HIDDEN).to(device, dtype)
    with torch.no_grad():
        model(inputs_embeds=embeddings)
    hook.remove()
    if isinstance(model, BigBirdModel) and model.attention_type != "block_sparse":
        raise CannotRunError(
            f"BigBird attends fully, not in sparse blocks, to as few as {tokens} tokens"
        )
    args, kwargs = handed[0]
    if "hidden_states" in kwargs:
        args = (kwargs["hidden_states"], *args)
        kwargs = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    return Layer(layer, args, kwargs, params)


def _config(config_class: type[PreTrainedConfig], tokens: int, **more: Any) -> Any:
    return config_class(
        vocab_size=8,
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=1,
        # RoBERTa and Longformer count positions from 2.
        max_position_embeddings=tokens + 2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **more,
    )


def _roberta(tokens: int) -> tuple[PreTrainedModel, dict[str, Any]]:
    config = _config(RobertaConfig, tokens, attn_implementation="sdpa")
    return RobertaModel(config, add_pooling_layer=False), {"attention": "sdpa"}


def _patched(attention: str) -> Callable[[int], tuple[PreTrainedModel, dict[str, Any]]]:
    def build(tokens: int) -> tuple[PreTrainedModel, dict[str, Any]]:
        model, _ = _roberta(tokens)
        has_budget = "budget" in get_attention(attention).serves
        params = {"block_per_row": block_per_row(tokens)} if has_budget else {}
        mra_plugin.patch(model, attention=attention, **params)
        return model, {"attention": attention, **params}

    return build


def _longformer(tokens: int) -> tuple[PreTrainedModel, dict[str, Any]]:
    config = _config(LongformerConfig, tokens)
    params = {"attention_window": config.attention_window}
    return LongformerModel(config, add_pooling_layer=False), params


def _big_bird(tokens: int) -> tuple[PreTrainedModel, dict[str, Any]]:
    config = _config(BigBirdConfig, tokens)
    params = {"block_size": config.block_size, "num_random_blocks": config.num_random_blocks}
    return BigBirdModel(config, add_pooling_layer=False), params


def _nystromformer(tokens: int) -> tuple[PreTrainedModel, dict[str, Any]]:
    # By default its segments are of 64 tokens in all, which makes it exact attention: it
    # approximates only when told the length beforehand.
    config = _config(NystromformerConfig, tokens, segment_means_seq_len=tokens)
    params = {
        "num_landmarks": config.num_landmarks,
        "conv_kernel_size": config.conv_kernel_size,
        "segment_means_seq_len": tokens,
    }
    return NystromformerModel(config), params


METHODS: dict[str, Callable[[int], tuple[PreTrainedModel, dict[str, Any]]]] = {
    REFERENCE: _roberta,
    "mra": _patched("mra"),
    "nystrom": _patched("nystrom"),
    "longformer": _longformer,
    "bigbird": _big_bird,
    "nystromformer": _nystromformer,
}
