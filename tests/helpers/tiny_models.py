"""Tiny encoders of every supported family, with weights large enough for attention to be sharp."""

from collections.abc import Callable

import torch
import transformers as tf
from torch import Tensor, nn

TOKENS = 70
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
    "max_position_embeddings": 160,
    "initializer_range": 0.3,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_DISTILBERT = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 48,
    "vocab_size": 64,
    "max_position_embeddings": 160,
    "initializer_range": 0.3,
}


def _text(
    model_class: type[nn.Module], config_class: type, **more: object
) -> Callable[..., object]:
    return lambda **extra: model_class(config_class(**{**_SIZES, **more, **extra}))


MAKE: dict[str, Callable[..., nn.Module]] = {
    "albert": _text(tf.AlbertModel, tf.AlbertConfig, embedding_size=16),
    "bert": _text(tf.BertModel, tf.BertConfig),
    "camembert": _text(tf.CamembertModel, tf.CamembertConfig),
    "data2vec-text": _text(tf.Data2VecTextModel, tf.Data2VecTextConfig),
    "distilbert": lambda **extra: tf.DistilBertModel(
        tf.DistilBertConfig(**{**_DISTILBERT, **extra})
    ),
    "electra": _text(tf.ElectraModel, tf.ElectraConfig, embedding_size=16),
    "ernie": _text(tf.ErnieModel, tf.ErnieConfig),
    "esm": _text(tf.EsmModel, tf.EsmConfig, position_embedding_type="rotary", mask_token_id=3),
    "eurobert": _text(tf.EuroBertModel, tf.EuroBertConfig, num_key_value_heads=1),
    "modernbert": _text(
        tf.ModernBertModel,
        tf.ModernBertConfig,
        layer_types=["full_attention", "sliding_attention"],
        local_attention=20,
        cls_token_id=0,
        sep_token_id=2,
    ),
    "roberta": _text(tf.RobertaModel, tf.RobertaConfig),
    "roberta-prelayernorm": _text(tf.RobertaPreLayerNormModel, tf.RobertaPreLayerNormConfig),
    "xlm-roberta": _text(tf.XLMRobertaModel, tf.XLMRobertaConfig),
    "vit": lambda **extra: tf.ViTModel(
        tf.ViTConfig(
            **{**_SIZES, "image_size": 32, "patch_size": 4, "num_channels": 1, **extra},
        )
    ),
}
TEXT = sorted(set(MAKE) - {"vit"})


def make(family: str, **extra: object) -> nn.Module:
    torch.manual_seed(0)
    return MAKE[family](**extra).eval()


def siglip() -> nn.Module:
    """A model of two, whose config has one for each."""
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**sizes, "vocab_size": 64, "projection_size": 16}
    vision = {**sizes, "image_size": 32, "patch_size": 4}
    return tf.SiglipModel(tf.SiglipConfig(text_config=text, vision_config=vision)).eval()


def token_ids(batch: int = 2, tokens: int = TOKENS) -> Tensor:
    return torch.randint(4, 64, (batch, tokens), generator=torch.Generator().manual_seed(1))


def padded(batch: int = 2, tokens: int = TOKENS, real: int = 45) -> Tensor:
    """A padding mask whose last row has ``real`` tokens."""
    mask = torch.ones(batch, tokens, dtype=torch.long)
    mask[-1, real:] = 0
    return mask


def inputs_of(family: str, mask: Tensor | None = None) -> dict[str, Tensor]:
    if family == "vit":
        generator = torch.Generator().manual_seed(1)
        return {"pixel_values": torch.randn(2, 1, 32, 32, generator=generator)}
    return (
        {"input_ids": token_ids()}
        if mask is None
        else {
            "input_ids": token_ids(),
            "attention_mask": mask,
        }
    )


@torch.no_grad()
def hidden(model: nn.Module, **inputs: Tensor) -> Tensor:
    return model(**inputs).last_hidden_state
