"""MRA attention as an operator of xformers' ``memory_efficient_attention``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from xformers.ops.fmha import attn_bias, common

from mra_plugin.backends.mra import MRAAttention
from mra_plugin.ops import mra_attention

# What xformers says of its own kernels and must not keep this operator from running: it needs
# none of xformers' binaries, and computes in bfloat16 everywhere.
_NOT_OURS = ("wasn't build with CUDA support", "bf16 is only supported on A100+ GPUs")


class _MraOperator(common.AttentionOpBase):  # type: ignore[misc]
    """What both directions declare to xformers."""

    OPERATOR = staticmethod(mra_attention)
    SUPPORTED_DEVICES = frozenset({"cpu", "cuda"})
    SUPPORTED_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
    SUPPORTED_MAX_K = float("inf")
    SUPPORTED_ATTN_BIAS_TYPES = (type(None), attn_bias.BlockDiagonalMask)
    SUPPORTS_DROPOUT = False
    SUPPORTS_CUSTOM_SCALE = True
    SUPPORTS_DIFFERENT_VALUE_EMBED = True
    SUPPORTS_BMGHK = True
    SUPPORTS_PARTIAL = False

    @classmethod
    def not_supported_reasons(cls, d: common.Inputs) -> list[str]:
        """Why the inputs can't be served; empty if they can."""
        reasons = super().not_supported_reasons(d)
        return [reason for reason in reasons if not any(part in reason for part in _NOT_OURS)]


def xformers_op(
    *, preset: str | None = None, **params: Any
) -> tuple[type[common.AttentionFwOpBase], type[common.AttentionBwOpBase]]:
    """MRA attention for ``xformers.ops.memory_efficient_attention(..., op=xformers_op())``.

    Inputs are in xformers' layout [B, M, H, K], or [B, M, K], or without gradients
    [B, M, G, H, K]. Packed sequences of varying length (``BlockDiagonalMask``) each get the result
    that they would get alone; sequences of equal length are worked on together.

    Args:
        preset: one of `mra_plugin.ops.PRESETS`, which stands for all options that are not given;
            None stands for their defaults, the paper's.
        **params: options of `mra_plugin.ops.mra_attention`, such as ``block_per_row``.

    Returns:
        The forward and the backward operator.

    Raises:
        TypeError: an option is unknown or has the wrong type.
        ValueError: there is no such preset, or an option has a wrong value.
    """
    attention = MRAAttention(preset=preset, **params)
    options: dict[str, Any] = {**attention.options, "impl": attention.impl}

    class BwOp(_MraOperator, common.AttentionBwOpBase):  # type: ignore[misc]
        NAME = "mraB"

        @classmethod
        def apply(cls, ctx: common.Context, inp: common.Inputs, grad: Tensor) -> common.Gradients:
            """Gradients in the layout of the inputs."""
            if ctx.rng_state is None:
                raise ValueError(
                    "the backward of MRA needs what its forward found; call "
                    "memory_efficient_attention, not memory_efficient_attention_backward"
                )
            out, leaves = ctx.rng_state
            grads = torch.autograd.grad(out, leaves, grad.view_as(out), retain_graph=True)
            return common.Gradients(*grads)

    class FwOp(_MraOperator, common.AttentionFwOpBase):  # type: ignore[misc]
        NAME = "mraF"

        @classmethod
        def apply(
            cls, inp: common.Inputs, needs_gradient: bool
        ) -> tuple[Tensor, common.Context | None]:
            """Output in the layout of the inputs."""
            if not needs_gradient:
                return _attend(inp.query, inp.key, inp.value, inp, options)[0], None
            if inp.query.ndim == 5:
                raise ValueError(
                    "xformers has no gradients for inputs of shape [B, M, G, H, K], "
                    f"got {list(inp.query.shape)}; give them as [B, M, G·H, K]"
                )
            query, key, value = leaves = [
                x.detach().requires_grad_() for x in (inp.query, inp.key, inp.value)
            ]
            with torch.enable_grad():
                out, lse = _attend(query, key, value, inp, options)
            # xformers hands this to the backward untouched: there the graph says what the choice
            # of blocks was, which output and log-sum-exp don't.
            state = (out, leaves)
            context = common.Context(lse.detach(), out.detach(), op_bw=BwOp, rng_state=state)
            return out.detach(), context

    return FwOp, BwOp


def _attend(
    query: Tensor, key: Tensor, value: Tensor, inp: common.Inputs, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Output [B, M, (G,) H, Kv] and log-sum-exp [B, (G,) H, M]."""
    shape, heads = (*query.shape[:-1], value.shape[-1]), query.shape[2:-1]
    # [B, M, G, H, K] -> [B, M, G·H, K] -> [B, H, M, K]
    query, key, value = (x.flatten(2, -2).transpose(1, 2) for x in (query, key, value))
    settings = {"scale": inp.scale_float, "return_lse": True, **options}
    if inp.attn_bias is None:
        out, lse = mra_attention(query, key, value, **settings)
    else:
        out, lse = _attend_packed(query, key, value, inp.attn_bias, settings)
    return out.transpose(1, 2).reshape(shape), torch.unflatten(lse, 1, heads)


def _attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: attn_bias.BlockDiagonalMask,
    settings: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Output [1, H, M, Kv] and log-sum-exp [1, H, M] of sequences in one row."""
    if bias.q_seqinfo.seqstart_py[-1] != query.shape[2]:
        raise ValueError(
            f"attn_bias must cover all {query.shape[2]} queries, "
            f"got sequences of {bias.q_seqinfo.seqstart_py[-1]} in all"
        )
    if bias.k_seqinfo.seqstart_py[-1] > key.shape[2]:
        raise ValueError(
            f"attn_bias must not go beyond the {key.shape[2]} keys, "
            f"got sequences of {bias.k_seqinfo.seqstart_py[-1]} in all"
        )
    outs, lses, places = [], [], []
    for queries, keys in _equal_lengths(bias, query.device):
        # [1, H, M, K] -> [H, S, n, K] -> [S, H, n, K], S sequences of n tokens each
        q, k, v = (
            x[0, :, at].transpose(0, 1) for x, at in ((query, queries), (key, keys), (value, keys))
        )
        out, lse = mra_attention(q, k, v, **settings)
        outs.append(out.transpose(0, 1).flatten(1, 2))  # [H, S·n, Kv]
        lses.append(lse.transpose(0, 1).flatten(1, 2))
        places.append(queries.flatten())
    back = torch.cat(places).argsort()
    return torch.cat(outs, 1)[None, :, back], torch.cat(lses, 1)[None, :, back]


def _equal_lengths(
    bias: attn_bias.BlockDiagonalMask, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Positions of queries [S, Nq] and keys [S, Nk] of sequences with the same two lengths."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    query_starts, key_starts = bias.q_seqinfo.seqstart_py, bias.k_seqinfo.seqstart_py
    for i in range(len(query_starts) - 1):
        lengths = (query_starts[i + 1] - query_starts[i], key_starts[i + 1] - key_starts[i])
        groups.setdefault(lengths, []).append((query_starts[i], key_starts[i]))
    for (query_length, key_length), starts in groups.items():
        first = torch.tensor(starts, device=device)  # [S, 2]
        yield (
            first[:, :1] + torch.arange(query_length, device=device),
            first[:, 1:] + torch.arange(key_length, device=device),
        )
