"""Tiny diffusion transformers with random weights, and their inputs on a grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

TEXT = 7
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}


@dataclass(frozen=True)
class Tiny:
    """How to make a family's model and the arguments of a call.

    Attributes:
        make: the model.
        inputs: takes the batch and the grid (frames, height, width) of tokens.
        frames: how many frames a grid may have; 1 for pictures.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[..., dict[str, Any]]
    frames: int = 1


def _text(batch: int) -> Tensor:
    return torch.randn(batch, TEXT, 24)


def _pictures(channels: int, **more: Callable[[int], Any]) -> Callable[..., dict[str, Any]]:
    def inputs(batch: int, grid: tuple[int, int, int]) -> dict[str, Any]:
        _, height, width = grid
        return {
            "hidden_states": torch.randn(batch, channels, 2 * height, 2 * width),
            "timestep": torch.full((batch,), 500),
            **{name: value(batch) for name, value in more.items()},
        }

    return inputs


def _clips(channels: int, **more: Callable[[int], Any]) -> Callable[..., dict[str, Any]]:
    def inputs(batch: int, grid: tuple[int, int, int]) -> dict[str, Any]:
        frames, height, width = grid
        return {
            "hidden_states": torch.randn(batch, channels, frames, 2 * height, 2 * width),
            "timestep": torch.full((batch,), 500),
            "encoder_hidden_states": _text(batch),
            **{name: value(batch) for name, value in more.items()},
        }

    return inputs


def _packed(axes: int, **more: Callable[[int], Any]) -> Callable[..., dict[str, Any]]:
    def inputs(batch: int, grid: tuple[int, int, int]) -> dict[str, Any]:
        _, height, width = grid
        ids = torch.zeros(height, width, axes)
        ids[..., 1] += torch.arange(height)[:, None]
        ids[..., 2] += torch.arange(width)
        return {
            "hidden_states": torch.randn(batch, height * width, 8),
            "timestep": torch.full((batch,), 0.5),
            "encoder_hidden_states": _text(batch),
            "img_ids": ids.flatten(0, 1),
            "txt_ids": torch.zeros(TEXT, axes),
            **{name: value(batch) for name, value in more.items()},
        }

    return inputs


def _cogvideox(batch: int, grid: tuple[int, int, int]) -> dict[str, Any]:
    inputs = _clips(4)(batch, grid)
    return {**inputs, "hidden_states": inputs["hidden_states"].transpose(1, 2).contiguous()}


def _vace(batch: int, grid: tuple[int, int, int]) -> dict[str, Any]:
    inputs = _clips(4)(batch, grid)
    return {**inputs, "control_hidden_states": torch.randn_like(inputs["hidden_states"])}


def _ltx(batch: int, grid: tuple[int, int, int]) -> dict[str, Any]:
    frames, height, width = grid
    return {
        "hidden_states": torch.randn(batch, frames * height * width, 8),
        "timestep": torch.full((batch,), 500),
        "encoder_hidden_states": _text(batch),
        "encoder_attention_mask": _mask(batch),
        "num_frames": frames,
        "height": height,
        "width": width,
    }


def _qwen(batch: int, grid: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(batch, grid[1] * grid[2], 8),
        "timestep": torch.full((batch,), 0.5),
        "encoder_hidden_states": _text(batch),
        "encoder_hidden_states_mask": _mask(batch).bool(),
        "img_shapes": [[grid]] * batch,
    }


def _mask(batch: int) -> Tensor:
    """The last sample has less text."""
    mask = torch.ones(batch, TEXT, dtype=torch.long)
    mask[-1, TEXT - 2 :] = 0
    return mask


def _pooled(batch: int) -> Tensor:
    return torch.randn(batch, 12)


def _pairs(batch: int) -> Tensor:
    return torch.full((batch, 2), 64.0)


_JOINT = {**_HEADS, "joint_attention_dim": 24}
_FLUX = {**_JOINT, "in_channels": 8, "num_layers": 1, "num_single_layers": 1}
_WAN = {
    **_HEADS,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 24,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
}

TINY: dict[str, Tiny] = {
    "AuraFlowTransformer2DModel": Tiny(
        lambda: diffusers.AuraFlowTransformer2DModel(
            **_JOINT,
            sample_size=32,
            caption_projection_dim=32,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            pos_embed_max_size=1024,
        ),
        _pictures(4, encoder_hidden_states=_text),
    ),
    "ChromaTransformer2DModel": Tiny(
        lambda: diffusers.ChromaTransformer2DModel(
            **_FLUX,
            axes_dims_rope=(4, 6, 6),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
        _packed(3),
    ),
    "CogVideoXTransformer3DModel": Tiny(
        lambda: diffusers.CogVideoXTransformer3DModel(
            **_HEADS,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=24,
            num_layers=2,
            sample_width=16,
            sample_height=16,
            sample_frames=9,
            max_text_seq_length=TEXT,
        ),
        _cogvideox,
        frames=3,
    ),
    "CogView4Transformer2DModel": Tiny(
        lambda: diffusers.CogView4Transformer2DModel(
            **_HEADS,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            text_embed_dim=24,
            time_embed_dim=16,
            condition_dim=8,
            rope_axes_dim=(8, 8),
        ),
        _pictures(
            4,
            encoder_hidden_states=_text,
            original_size=_pairs,
            target_size=_pairs,
            crop_coords=_pairs,
        ),
    ),
    "CosmosTransformer3DModel": Tiny(
        lambda: diffusers.CosmosTransformer3DModel(
            **_HEADS,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            text_embed_dim=24,
            adaln_lora_dim=4,
            max_size=(4, 32, 32),
            extra_pos_embed_type=None,
            concat_padding_mask=False,
        ),
        _clips(4),
        frames=3,
    ),
    "DiTTransformer2DModel": Tiny(
        lambda: diffusers.DiTTransformer2DModel(
            **_HEADS, in_channels=4, num_layers=2, sample_size=16, num_embeds_ada_norm=10
        ),
        _pictures(4, class_labels=lambda batch: torch.arange(batch)),
    ),
    "Flux2Transformer2DModel": Tiny(
        lambda: diffusers.Flux2Transformer2DModel(
            **_FLUX,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        _packed(4),
    ),
    "FluxTransformer2DModel": Tiny(
        lambda: diffusers.FluxTransformer2DModel(
            **_FLUX, pooled_projection_dim=12, axes_dims_rope=(4, 6, 6)
        ),
        _packed(3, pooled_projections=_pooled),
    ),
    "HunyuanDiT2DModel": Tiny(
        lambda: diffusers.HunyuanDiT2DModel(
            **_HEADS,
            in_channels=4,
            patch_size=2,
            sample_size=16,
            hidden_size=32,
            num_layers=2,
            cross_attention_dim=24,
            cross_attention_dim_t5=24,
            pooled_projection_dim=12,
            text_len=TEXT,
            text_len_t5=TEXT,
            use_style_cond_and_image_meta_size=False,
        ),
        _pictures(
            4,
            encoder_hidden_states=_text,
            text_embedding_mask=_mask,
            encoder_hidden_states_t5=_text,
            text_embedding_mask_t5=_mask,
            timestep=lambda batch: torch.full((batch,), 500.0),
        ),
    ),
    "HunyuanVideoTransformer3DModel": Tiny(
        lambda: diffusers.HunyuanVideoTransformer3DModel(
            **_HEADS,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            guidance_embeds=False,
            text_embed_dim=24,
            pooled_projection_dim=12,
            rope_axes_dim=(4, 6, 6),
        ),
        _clips(4, encoder_attention_mask=_mask, pooled_projections=_pooled),
        frames=3,
    ),
    "LTXVideoTransformer3DModel": Tiny(
        lambda: diffusers.LTXVideoTransformer3DModel(
            **_HEADS,
            in_channels=8,
            out_channels=8,
            cross_attention_dim=32,
            num_layers=2,
            caption_channels=24,
        ),
        _ltx,
        frames=3,
    ),
    "MochiTransformer3DModel": Tiny(
        lambda: diffusers.MochiTransformer3DModel(
            **_HEADS,
            in_channels=4,
            num_layers=2,
            pooled_projection_dim=16,
            text_embed_dim=24,
            time_embed_dim=8,
            max_sequence_length=TEXT,
        ),
        _clips(4, encoder_attention_mask=lambda batch: _mask(batch).bool()),
        frames=3,
    ),
    "PixArtTransformer2DModel": Tiny(
        lambda: diffusers.PixArtTransformer2DModel(
            **_HEADS,
            in_channels=4,
            num_layers=2,
            cross_attention_dim=32,
            sample_size=16,
            caption_channels=24,
        ),
        _pictures(
            4,
            encoder_hidden_states=_text,
            added_cond_kwargs=lambda batch: {"resolution": None, "aspect_ratio": None},
        ),
    ),
    "QwenImageTransformer2DModel": Tiny(
        lambda: diffusers.QwenImageTransformer2DModel(
            **_JOINT, in_channels=8, out_channels=2, num_layers=2, axes_dims_rope=(4, 6, 6)
        ),
        _qwen,
    ),
    "SD3Transformer2DModel": Tiny(
        lambda: diffusers.SD3Transformer2DModel(
            **_JOINT,
            sample_size=32,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            caption_projection_dim=32,
            pooled_projection_dim=12,
            pos_embed_max_size=32,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        _pictures(4, encoder_hidden_states=_text, pooled_projections=_pooled),
    ),
    "SkyReelsV2Transformer3DModel": Tiny(
        lambda: diffusers.SkyReelsV2Transformer3DModel(**_WAN), _clips(4), frames=3
    ),
    "WanVACETransformer3DModel": Tiny(
        lambda: diffusers.WanVACETransformer3DModel(**_WAN, vace_layers=[0], vace_in_channels=4),
        _vace,
        frames=3,
    ),
    "WanTransformer3DModel": Tiny(
        lambda: diffusers.WanTransformer3DModel(**_WAN), _clips(4), frames=3
    ),
}


def make(name: str) -> nn.Module:
    """A family's model, the same each time."""
    torch.manual_seed(0)
    model = TINY[name].make()
    with torch.no_grad():
        for parameter in model.parameters():
            # Layers that start as zero would hide what attention gives.
            parameter.normal_(0, 0.3 if parameter.ndim == 1 else 0.8 / parameter.shape[-1] ** 0.5)
    return model.eval()


def inputs_of(name: str, grid: tuple[int, int, int], batch: int = 1) -> dict[str, Any]:
    """Arguments of a call, the same each time."""
    torch.manual_seed(1)
    return TINY[name].inputs(batch, grid)


def touched(name: str, inputs: dict[str, Any], at: tuple[int, int, int]) -> dict[str, Any]:
    """The inputs with another latent at a frame, line and column of the grid of tokens."""
    states = inputs["hidden_states"].clone()
    frame, line, column = at
    if states.ndim == 3:
        sides = (inputs.get("num_frames", 1), *_picture_of(inputs))
        states[:, (frame * sides[1] + line) * sides[2] + column] += 1
    elif states.ndim == 4:
        states[..., 2 * line, 2 * column] += 1
    else:
        frames_first = name == "CogVideoXTransformer3DModel"
        states.select(1 if frames_first else 2, frame)[..., 2 * line, 2 * column] += 1
    return {**inputs, "hidden_states": states}


def _picture_of(inputs: dict[str, Any]) -> tuple[int, int]:
    if "img_ids" in inputs:
        height, width = (inputs["img_ids"].amax(0)[1:3] + 1).int().tolist()
        return height, width
    if "img_shapes" in inputs:
        return inputs["img_shapes"][0][0][1:]
    return inputs["height"], inputs["width"]


def output(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """What a transformer predicts."""
    return model(**inputs, return_dict=False)[0]
