"""Exact attention: the backends that need no plugin."""

import importlib
import importlib.util
import math
from typing import Any

import torch
from torch import Tensor, nn

from .backend import AttentionBackend
from .hookspecs import hookimpl
from .inputs import check_inputs, real_queries


def exact_weights(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None = None,
    query_padding_mask: Tensor | None = None,
    *,
    scale: float | None = None,
) -> Tensor:
    """The softmax matrix of exact attention, dense.

    Args:
        query: [B, H, Nq, D].
        key: [B, H, Nk, D].
        key_padding_mask: bool [B, Nk], True at a real token.
        query_padding_mask: bool [B, Nq]; as in `Attention`.
        scale: factor on the logits; None means 1/√D.

    Returns:
        [B, H, Nq, Nk], in the dtype of ``query``; 0 at padded keys and in padded queries' rows.
    """
    check_inputs(query, key, key, key_padding_mask, query_padding_mask)
    rows = real_queries(query, key, key_padding_mask, query_padding_mask)
    wide = torch.promote_types(query.dtype, torch.float32)
    logits = query.to(wide) @ key.to(wide).mT * _scale(query, scale)
    if key_padding_mask is not None:
        logits = logits.masked_fill(~_open_keys(key_padding_mask), -math.inf)
    weights = logits.softmax(-1)
    if rows is not None:
        weights = weights.masked_fill(~rows[:, None, :, None], 0)
    return weights.to(query.dtype)


class SdpaAttention:
    """PyTorch's own ``scaled_dot_product_attention``, on any device."""

    weights = staticmethod(exact_weights)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends; shapes and masks as in `Attention`."""
        check_inputs(query, key, value, key_padding_mask, query_padding_mask)
        rows = real_queries(query, key, key_padding_mask, query_padding_mask)
        attn_mask = None if key_padding_mask is None else _open_keys(key_padding_mask)
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, scale=scale
        )
        return output if rows is None else output.masked_fill(~rows[:, None, :, None], 0)

    def biased_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends with a bias; see `AttentionWithBias`."""
        check_inputs(query, key, value, key_padding_mask, query_padding_mask)
        rows = real_queries(query, key, key_padding_mask, query_padding_mask)
        bias = bias.to(query.dtype)
        if key_padding_mask is not None:
            bias = torch.where(_open_keys(key_padding_mask), bias, -math.inf)
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=scale
        )
        return output if rows is None else output.masked_fill(~rows[:, None, :, None], 0)


class XformersAttention:
    """The ``memory_efficient_attention`` of xformers, on CUDA devices.

    Padded batches are packed into one sequence of real tokens, so padding costs no arithmetic; the
    packing waits for the device once to learn the lengths.
    """

    weights = staticmethod(exact_weights)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends; shapes and masks as in `Attention`.

        Raises:
            ValueError: the inputs are on a device or of a dtype that xformers has no kernel for.
            NotImplementedError: none of its kernels takes these shapes; its message says why.
        """
        check_inputs(query, key, value, key_padding_mask, query_padding_mask)
        reason = _xformers_unsupported(query, key, value)
        if reason is not None:
            raise ValueError(reason)
        attend = _xformers_ops().memory_efficient_attention
        rows = real_queries(query, key, key_padding_mask, query_padding_mask)
        # xformers lays tokens before heads: [B, N, H, D].
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        output: Tensor
        if rows is None and query.numel() and key.numel():
            output = attend(query, key, value, scale=scale)
        else:
            # The empty sum is 0, and keeps the outputs of masked tokens differentiable.
            output = query.new_zeros(*query.shape[:3], value.shape[3]) + query[..., :0].sum()
        if rows is not None:
            if key_padding_mask is None:
                key_padding_mask = rows.new_ones(key.shape[:2])
            # A kernel may not take a sequence without queries or without keys: leave both out.
            columns = key_padding_mask & rows.any(-1, keepdim=True)
            lengths = torch.stack((rows.sum(-1), columns.sum(-1))).tolist()
            query_lengths, key_lengths = ([n for n in side if n] for side in lengths)
            if key_lengths:
                bias = _xformers_ops().fmha.BlockDiagonalMask.from_seqlens(
                    query_lengths, key_lengths, device=query.device
                )
                packed = (query[rows][None], key[columns][None], value[columns][None])
                output[rows] = attend(*packed, bias, scale=scale)[0]
        return output.transpose(1, 2)


def _scale(query: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(query.shape[-1]) if scale is None else scale


def _open_keys(key_padding_mask: Tensor) -> Tensor:
    """Bool [B, 1, 1, Nk], True at keys to attend to: the real ones, or all if there are none.

    A softmax over no keys at all is NaN in some kernels, and so is its gradient; callers set the
    outputs of such sequences to 0 afterwards.
    """
    nothing = ~key_padding_mask.any(-1, keepdim=True)
    return (key_padding_mask | nothing)[:, None, None, :]


def _xformers_ops() -> Any:
    return importlib.import_module("xformers.ops")


def _xformers_unavailable() -> str | None:
    # Importing xformers is slow and prints a warning where its binaries don't match: not here,
    # unless the answer depends on it.
    if importlib.util.find_spec("xformers") is None:
        return "xformers is not installed"
    if not torch.cuda.is_available():
        return "xformers has attention kernels for CUDA devices only, and PyTorch sees none here"
    try:
        xops = _xformers_ops()
        probe = torch.zeros(1, 8, 1, 64, dtype=torch.float16, device="cuda")
        xops.memory_efficient_attention(probe, probe, probe)
    except NotImplementedError:
        device = torch.cuda.get_device_name()
        return (
            f"xformers has no attention kernel that runs on {device} as it is installed here; "
            "`python -m xformers.info` lists what it was built with"
        )
    except Exception as error:
        return f"a trial of xformers failed: {type(error).__name__}: {error}"
    return None


def _xformers_unsupported(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.device.type != "cuda":
            return f"xformers serves CUDA tensors only, {name} is on {tensor.device}"
        if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return f"xformers serves float16, bfloat16 and float32 only, {name} is {tensor.dtype}"
    return None


@hookimpl
def efficient_attention_backends() -> list[AttentionBackend]:
    """Offers what is exact."""
    return [
        AttentionBackend(
            name="sdpa",
            build=SdpaAttention,
            summary="exact: PyTorch's scaled_dot_product_attention",
            serves=frozenset({"weights", "bias"}),
        ),
        AttentionBackend(
            name="xformers",
            build=XformersAttention,
            summary="exact: xformers' memory_efficient_attention (CUDA)",
            why_unavailable=_xformers_unavailable,
            why_unsupported=_xformers_unsupported,
            serves=frozenset({"weights"}),
        ),
    ]
