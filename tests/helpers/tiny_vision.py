"""Tiny vision encoders with random weights, on pictures of 8 x 8 patches."""

from collections.abc import Callable

import torch
import transformers as tf
from torch import Tensor, nn

PATCH = 4
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
    "patch_size": PATCH,
}
_PICTURES = {**_SIZES, "intermediate_size": 48, "image_size": 8 * PATCH}
_REGISTERS = {**_PICTURES, "num_register_tokens": 3}

VISION: dict[str, Callable[[], nn.Module]] = {
    "clip_vision_model": lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**_PICTURES)),
    "deit": lambda: tf.DeiTModel(tf.DeiTConfig(**_PICTURES), add_pooling_layer=False),
    "dinov2": lambda: tf.Dinov2Model(tf.Dinov2Config(**_PICTURES)),
    "dinov2_with_registers": lambda: tf.Dinov2WithRegistersModel(
        tf.Dinov2WithRegistersConfig(**_REGISTERS)
    ),
    "dinov3_vit": lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**_REGISTERS)),
    "ijepa": lambda: tf.IJepaModel(tf.IJepaConfig(**_PICTURES), add_pooling_layer=False),
    "siglip_vision_model": lambda: tf.SiglipVisionModel(tf.SiglipVisionConfig(**_PICTURES)),
    "vit": lambda: tf.ViTModel(tf.ViTConfig(**_PICTURES), add_pooling_layer=False),
    "vjepa2": lambda: tf.VJEPA2Model(
        tf.VJEPA2Config(
            **_SIZES,
            crop_size=8 * PATCH,
            frames_per_clip=4,
            tubelet_size=2,
            pred_hidden_size=32,
            pred_num_attention_heads=2,
            pred_num_hidden_layers=1,
        )
    ),
}


def make_vision(name: str) -> nn.Module:
    """An encoder, the same each time."""
    torch.manual_seed(0)
    return VISION[name]().eval()


def picture_of(name: str, height: int = 8, width: int = 8) -> Tensor:
    """Two pictures [2, 3, H, W] or clips [2, 4, 3, H, W], sides in patches."""
    torch.manual_seed(1)
    frames = (4,) if name == "vjepa2" else ()
    return torch.randn(2, *frames, 3, height * PATCH, width * PATCH)
