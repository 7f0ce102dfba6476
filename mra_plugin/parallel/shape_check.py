"""Finds out whether processes disagree before a collective call hangs or mixes their data up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_same_everywhere(
    group: ProcessGroup, tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor | None]
) -> None:
    """Raises in every process if the processes hold different things.

    Args:
        group: the processes.
        tensors: floating tensors by name, of four axes each.
        masks: masks by name, or None; their shape follows from that of the tensors.

    Raises:
        ValueError: two processes differ in a shape, a dtype, or in having a mask.
    """
    numbers = [n for x in tensors.values() for n in (*x.shape, _DTYPES.index(x.dtype))]
    numbers += [mask is not None for mask in masks.values()]
    device = next(iter(tensors.values())).device
    own = torch.tensor(numbers, dtype=torch.long, device=device)
    gathered = [torch.empty_like(own) for _ in range(group.size())]
    dist.all_gather(gathered, own, group=group)
    first, *others = torch.stack(gathered).tolist()
    for rank, other in enumerate(others, 1):
        if other != first:
            raise ValueError(
                "the processes that share a sequence must hold shards of equal shape, but process "
                f"0 of the group has {_in_words(first, tensors, masks)}, and process {rank} "
                f"{_in_words(other, tensors, masks)}; mra_plugin.parallel.shard_inputs cuts a "
                "batch into equal shards"
            )


def _in_words(
    numbers: list[int], tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor | None]
) -> str:
    words = [
        f"{name} {numbers[5 * i : 5 * i + 4]} {_DTYPES[numbers[5 * i + 4]]}"
        for i, name in enumerate(tensors)
    ]
    given = zip(masks, numbers[5 * len(tensors) :], strict=True)
    return ", ".join(words + [f"{name} {'given' if one else 'None'}" for name, one in given])
