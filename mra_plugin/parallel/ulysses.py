"""Sequence parallelism around any attention, as a backend of the registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mra_plugin.registry import build_attention
from mra_plugin.registry.inputs import check_inputs

from .exchange import gather_heads, gather_tokens, scatter_heads
from .group import sequence_group
from .shape_check import check_same_everywhere

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NAME = "ulysses"


class UlyssesAttention:
    """Attention over a sequence that is split among processes.

    Each process holds the same number of tokens, in the order of ranks. An all-to-all exchanges
    them for a share of the heads, an attention of the registry serves the whole sequence for those,
    and another all-to-all brings the tokens back: DeepSpeed-Ulysses, arXiv 2309.14509. Results and
    gradients are those of one process that attends alone.

    The processes are those of `sequence_parallel`, by default all.
    """

    def __init__(self, *, inner: str = "mra", **params: Any) -> None:
        """Builds the attention inside.

        Args:
            inner: name of a registered attention without weights.
            **params: its parameters.

        Raises:
            ValueError: the attention inside has weights, is this one again, or can't be built.
            TypeError: a parameter of it has the wrong type.
        """
        if inner == NAME:
            raise ValueError(f"inner must be another attention than {NAME!r} itself")
        self.inner = build_attention(inner, **params)
        if isinstance(self.inner, nn.Module) and self.inner.state_dict():
            raise ValueError(
                f"inner must be an attention without weights, but {inner!r} has "
                f"{', '.join(self.inner.state_dict())}: each process would train its own"
            )

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
        """Attends; a collective call, that every process of the group has to make.

        Args:
            query: [B, H, Nq/P, D], this process's part of the sequence.
            key: [B, H, Nk/P, D], likewise.
            value: [B, H, Nk/P, Dv], likewise.
            key_padding_mask: bool [B, Nk/P], True at a real token; None, in every process, if all
                are real.
            query_padding_mask: bool [B, Nq/P]; as in `mra_plugin.registry.Attention`.
            scale: factor on the logits; None means 1/√D.

        Returns:
            [B, H, Nq/P, Dv], in the dtype of ``query``.

        Raises:
            RuntimeError: there is no process group.
            TypeError: as the attention inside.
            ValueError: H is no multiple of the number of processes, the processes' inputs differ in
                shape, dtype or masks, or the attention inside refuses them.
        """
        return _with_whole_sequences(
            partial(self.inner, scale=scale),
            query,
            key,
            value,
            key_padding_mask,
            query_padding_mask,
        )

    def local_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        reach: int,
        scale: float | None,
    ) -> Tensor:
        """Sliding-window attention across the shards' borders.

        Arguments as in `mra_plugin.ops.local_attention.local_attention`, cut into shards;
        result and errors as in ``__call__``.
        """
        from mra_plugin.ops.local_attention import local_attention

        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, _: None) -> Tensor:
            return local_attention(q, k, v, mask, reach, scale)

        return _with_whole_sequences(attend, query, key, value, key_padding_mask, None)

    def __repr__(self) -> str:
        """Shows the attention inside."""
        return f"UlyssesAttention({self.inner!r})"


def why_unavailable() -> str | None:
    """Why there can be no sequence parallelism in this PyTorch, or None."""
    return None if dist.is_available() else "this PyTorch was built without torch.distributed"


def _with_whole_sequences(
    attend: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
) -> Tensor:
    """Calls ``attend`` with whole sequences of some heads in place of shards of all heads."""
    group = sequence_group()
    check_inputs(query, key, value, key_padding_mask, query_padding_mask)
    masks = (key_padding_mask, query_padding_mask)
    if group.size() == 1:
        return attend(query, key, value, *masks)
    _check_heads(query.shape[1], group.size())
    if not torch.compiler.is_compiling():  # it waits for the device
        check_same_everywhere(
            group,
            {"query": query, "key": key, "value": value},
            {"key_padding_mask": key_padding_mask, "query_padding_mask": query_padding_mask},
        )
    whole = (scatter_heads(x, group) for x in (query, key, value))
    out = attend(*whole, *_gather_masks(*masks, group))
    return gather_heads(out, group)


def _gather_masks(
    key_mask: Tensor | None, query_mask: Tensor | None, group: ProcessGroup
) -> tuple[Tensor | None, Tensor | None]:
    keys = None if key_mask is None else gather_tokens(key_mask, group)
    if query_mask is None or query_mask is key_mask:
        return keys, None if query_mask is None else keys
    return keys, gather_tokens(query_mask, group)


def _check_heads(heads: int, processes: int) -> None:
    if heads % processes:
        raise ValueError(
            f"{heads} heads can't be shared evenly by {processes} processes: the number of "
            "processes that share a sequence must divide the number of heads; give "
            "sequence_parallel a smaller group"
        )
