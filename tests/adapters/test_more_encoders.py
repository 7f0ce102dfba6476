"""Encoders that hide: parts of encoder-decoders, and causal models that were made encoders."""

from collections.abc import Callable

import pytest
import torch
import transformers as tf
from helpers.tiny_models import hidden, padded, token_ids
from torch import Tensor, nn

import mra_plugin

_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "initializer_range": 0.3,
    "init_std": 0.3,
}
_BOTH = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 20}


def bart() -> nn.Module:
    return tf.BartModel(tf.BartConfig(**_TINY, **_BOTH)).get_encoder()


def whisper() -> tf.WhisperConfig:
    more = {"num_mel_bins": 8, "max_source_positions": 70, "decoder_start_token_id": 0}
    return tf.WhisperConfig(**_TINY, **_BOTH, **more)


def layoutlm() -> nn.Module:
    return tf.LayoutLMModel(tf.LayoutLMConfig(**_TINY))


def embedding_gemma() -> nn.Module:
    config = tf.Gemma3TextConfig(
        **_TINY, **_SLIDING, head_dim=16, num_key_value_heads=1, use_bidirectional_attention=True
    )
    return tf.Gemma3TextModel(config)


def llama_as_an_encoder() -> nn.Module:
    config = tf.LlamaConfig(**_TINY)
    config.is_causal = False
    return tf.LlamaModel(config)


MODELS = {
    "bart": bart,
    "embedding_gemma": embedding_gemma,
    "llama": llama_as_an_encoder,
}
# Of later versions of transformers.
if tf.LayoutLMModel._supports_sdpa:
    MODELS["layoutlm"] = layoutlm
WHISPER = {
    "encoder": lambda: tf.WhisperModel(whisper()).get_encoder(),
    "classifier": lambda: tf.WhisperForAudioClassification(whisper()),
}


def made(make_model: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make_model().eval()


def exact(model: nn.Module, **inputs: Tensor) -> Tensor:
    # Not sdpa, which takes layers that say nothing for causal where there is no mask.
    model.set_attn_implementation("eager")
    return hidden(model, **inputs)


@pytest.mark.parametrize("mask", [None, padded()], ids=["all_real", "padded"])
@pytest.mark.parametrize("make_model", MODELS.values(), ids=MODELS)
def test_text(make_model: Callable[[], nn.Module], mask: Tensor | None) -> None:
    """An exact backend tells whether masks are read as the model means them."""
    model = made(make_model)
    inputs = {"input_ids": token_ids(), "attention_mask": mask}
    real = (padded() if mask is not None else torch.ones(2, 70)).bool()
    expected = exact(model, **inputs)[real]
    mra_plugin.patch(model, attention="sdpa")
    assert torch.allclose(hidden(model, **inputs)[real], expected, atol=1e-4)
    mra_plugin.patch(model, block_size=8, block_per_row=1)
    assert not torch.allclose(hidden(model, **inputs)[real], expected, atol=1e-4)


@pytest.mark.parametrize("make_model", MODELS.values(), ids=MODELS)
def test_with_the_flag(make_model: Callable[[], nn.Module]) -> None:
    model = made(make_model)
    patched = hidden(mra_plugin.patch(model), input_ids=token_ids())
    mra_plugin.unpatch(model)
    flagged = type(model)._from_config(model.config, attn_implementation="mra").eval()
    flagged.load_state_dict(model.state_dict())
    assert torch.equal(hidden(flagged, input_ids=token_ids()), patched)


@pytest.mark.parametrize("make_model", WHISPER.values(), ids=WHISPER)
def test_sound(make_model: Callable[[], nn.Module]) -> None:
    model = made(make_model)
    sound = torch.randn(2, 8, 140, generator=torch.Generator().manual_seed(1))

    def first_output() -> Tensor:
        with torch.no_grad():
            return model(sound)[0]

    expected = first_output()
    mra_plugin.patch(model, attention="sdpa")
    assert torch.allclose(first_output(), expected, atol=1e-4)
    mra_plugin.patch(model, block_size=8, block_per_row=1)
    assert not torch.equal(first_output(), expected)


def test_compiled() -> None:
    model = mra_plugin.patch(made(embedding_gemma), block_size=8, block_per_row=1)
    inputs = {"input_ids": token_ids(), "attention_mask": padded()}
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert torch.allclose(hidden(compiled, **inputs), hidden(model, **inputs), atol=1e-5)
