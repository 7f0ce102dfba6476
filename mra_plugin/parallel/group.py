"""The processes that share a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch.distributed as dist

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

# One for the process, not for the thread: with gradient checkpointing autograd calls attention
# again, on a thread of its own.
_chosen: ProcessGroup | None = None


@contextmanager
def sequence_parallel(group: DeviceMesh | ProcessGroup) -> Iterator[None]:
    """Has sequences split among the processes of ``group`` within a ``with`` block.

    Outside of any block they are split among all processes. The backward pass belongs into the
    block too, as gradient checkpointing runs attention again.

    Args:
        group: a device mesh of one dimension (of a larger one, ``mesh["sequence"]``), or a process
            group; this process must be in it.

    Raises:
        RuntimeError: torch.distributed is missing or not initialised.
        ValueError: the mesh has more than one dimension, or this process is not in the group.
    """
    global _chosen
    _check_initialised()
    before, _chosen = _chosen, _as_group(group)
    try:
        yield
    finally:
        _chosen = before


def sequence_group() -> ProcessGroup:
    """The group that sequences are split among.

    Raises:
        RuntimeError: torch.distributed is missing or not initialised.
    """
    _check_initialised()
    if _chosen is not None:
        return _chosen
    world = dist.group.WORLD
    assert world is not None
    return world


def _as_group(group: DeviceMesh | ProcessGroup) -> ProcessGroup:
    from torch.distributed.device_mesh import DeviceMesh

    if isinstance(group, dist.ProcessGroup):
        return group
    if not isinstance(group, DeviceMesh):
        # What torch.distributed.new_group gives to processes that are not in the group.
        raise ValueError(
            f"group must be a device mesh or process group that this process is in, got {group!r}"
        )
    if group.ndim != 1:
        raise ValueError(
            "group must be a mesh of one dimension, got the dimensions "
            f'{group.mesh_dim_names or tuple(group.shape)}; give one of them, mesh["name"]'
        )
    return group.get_group()


def _check_initialised() -> None:
    if not dist.is_available():
        raise RuntimeError("sequence parallelism needs a PyTorch that has torch.distributed")
    if not dist.is_initialized():
        raise RuntimeError(
            "sequence parallelism needs a process group: start the script with torchrun and call "
            "torch.distributed.init_process_group() first"
        )
