"""How tensors change hands between the processes that share a sequence.

One collective serves all: part p of a tensor goes to process p. Its gradient takes the way back.
P is the number of processes, n the tokens of a shard, N = P·n those of the sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .group import sequence_group

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def gather_sequence(shard: Tensor, length: int | None = None) -> Tensor:
    """Puts the shards of all processes together, on each of them.

    What every process computes from the whole, a loss for instance, counts in the gradients of all
    shards: averaged over the processes, as DistributedDataParallel and FSDP do, the parameters'
    gradients are those of the averaged loss.

    Args:
        shard: [B, n, ...], of the same shape in every process.
        length: tokens before padding; what follows is cut off. None keeps all.

    Returns:
        [B, length, ...].

    Raises:
        RuntimeError: there is no process group.
        ValueError: ``length`` is more than the shards hold, or ``shard`` has no axis of tokens.
    """
    if shard.ndim < 2:
        raise ValueError(f"shard must be [batch, tokens, ...], got shape {list(shard.shape)}")
    group = sequence_group()
    tokens = shard.shape[1] * group.size()
    length = tokens if length is None else length
    if not 0 <= length <= tokens:
        raise ValueError(
            f"length must be from 0 to {tokens}, the tokens of all shards, got {length}"
        )
    return gather_tokens(shard, group)[:, :length]


def gather_tokens(shard: Tensor, group: ProcessGroup) -> Tensor:
    """[B, n, ...] of each process, together [B, N, ...]."""
    copies = shard.expand(group.size(), *shard.shape)
    return exchange(copies, group).transpose(0, 1).flatten(1, 2)


def gather_heads(x: Tensor, group: ProcessGroup) -> Tensor:
    """From a sequence's heads to the shard's tokens: [B, H/P, N, D] -> [B, H, n, D]."""
    parts = x.unflatten(2, (group.size(), -1)).movedim(2, 0)  # [P, B, H/P, n, D]
    return exchange(parts, group).transpose(0, 1).flatten(1, 2)


def scatter_heads(x: Tensor, group: ProcessGroup) -> Tensor:
    """From a shard's tokens to some heads of the sequence: [B, H, n, D] -> [B, H/P, N, D]."""
    parts = x.unflatten(1, (group.size(), -1)).movedim(1, 0)  # [P, B, H/P, n, D]
    return exchange(parts, group).movedim(0, 2).flatten(2, 3)


def exchange(parts: Tensor, group: ProcessGroup) -> Tensor:
    """Sends ``parts[p]`` to process p, and returns at p what process p sent; [P, ...]."""
    # Imported here, as not every build of PyTorch has it.
    from torch.distributed import _functional_collectives as collectives

    if parts.dtype == torch.bool:  # not every communication library knows it
        return exchange(parts.to(torch.uint8), group).bool()
    # The plain functions of torch.distributed have no gradient, or none that compiles.
    received: Tensor = collectives.all_to_all_single_autograd(parts.contiguous(), None, None, group)
    return received
