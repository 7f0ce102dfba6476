"""Checks of arguments that all operators share."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(**tensors: Tensor) -> None:
    """Checks query, key and, if given, value on their own and against each other."""
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
        if x.dim() != 4:
            raise ValueError(
                f"{name} must have 4 dimensions [batch, heads, tokens, channels], "
                f"got shape {tuple(x.shape)}"
            )
        if x.dtype not in FLOATS:
            raise TypeError(f"{name} must be float16, bfloat16, float32 or float64, got {x.dtype}")
    query, key = tensors["query"], tensors["key"]
    for name, x in tensors.items():
        if x.dtype != query.dtype:
            raise TypeError(f"{name} must have the query's dtype {query.dtype}, got {x.dtype}")
        if x.device != query.device:
            raise ValueError(f"{name} must be on the query's device {query.device}, got {x.device}")
        if x.shape[:2] != query.shape[:2]:
            raise ValueError(
                f"{name} must have the query's batch and heads {tuple(query.shape[:2])}, "
                f"got shape {tuple(x.shape)}"
            )
    if query.shape[-1] == 0 or key.shape[-1] != query.shape[-1]:
        raise ValueError(
            "query and key must have the same positive number of channels, "
            f"got shapes {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if "value" in tensors and tensors["value"].shape[-2] != key.shape[-2]:
        raise ValueError(
            f"value must have the key's length {key.shape[-2]}, "
            f"got shape {tuple(tensors['value'].shape)}"
        )


def check_masks(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
) -> None:
    """Checks both masks."""
    for name, mask, x in (
        ("key_padding_mask", key_padding_mask, key),
        ("query_padding_mask", query_padding_mask, query),
    ):
        if mask is None:
            continue
        check_mask(name, mask, x.shape[0], x.shape[-2])
        if mask.device != x.device:
            raise ValueError(f"{name} must be on the query's device {x.device}, got {mask.device}")


def check_mask(name: str, mask: Any, batch: int, length: int) -> None:
    """Refuses what is no bool tensor [batch, length]."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"{name} must be a bool tensor, True = a real token, got {kind}")
    if tuple(mask.shape) != (batch, length):
        raise ValueError(
            f"{name} must have shape {(batch, length)} [batch, tokens], got {tuple(mask.shape)}"
        )


def check_scale(scale: float | None, channels: int) -> float:
    """The factor of the scores, 1/sqrt(channels) by default."""
    if scale is None:
        return 1 / math.sqrt(channels)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"scale must be a number, got {scale!r} ({type(scale).__name__})")
    # In a form that torch.compile can trace for a symbolic number too; nan fails it.
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    return float(scale)


def follow_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What PyTorch's own attention does under autocast: all but float64 in autocast's type.

    To be called before tensors are checked: under autocast they may differ in type. What is no
    tensor, or not of a floating type, comes back as it is.
    """
    if not all(isinstance(x, Tensor) for x in tensors):
        return tensors
    device = tensors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        x.to(dtype) if x.is_floating_point() and x.dtype != torch.float64 else x for x in tensors
    )


def outside_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Where autocast, if it is on, casts nothing; the device meta has none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def check_integer(name: str, value: Any, least: int | None = None) -> None:
    """Refuses what is no int, or less than ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    if value >= 1 << 31:
        raise ValueError(f"{name} must be less than 2**31, got {value}")


def refuse_forward_mode(impl: str, **tensors: Tensor) -> None:
    """Raises where operators of our own would take a derivative for zero, or fail in odd words."""
    for name, x in tensors.items():
        if forward_ad.unpack_dual(x).tangent is not None:
            raise NotImplementedError(
                f"{name} has a tangent, and impl={impl!r} has no forward-mode derivative "
                '(torch.func.jvp, jacfwd); impl="reference" has one'
            )
        # While compiling, PyTorch says it itself.
        compiling = torch.compiler.is_compiling()
        if not compiling and torch._C._functorch.is_functorch_wrapped_tensor(x):
            raise NotImplementedError(
                f"{name} is inside of a transform of torch.func (grad, vjp, vmap), which "
                f'impl={impl!r} does not serve; impl="reference" does'
            )
