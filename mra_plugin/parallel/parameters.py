"""Spreads a model's parameters over processes, by PyTorch's fully_shard (FSDP2)."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn


def shard_parameters(model: nn.Module) -> None:
    """Leaves each process a share of the parameters; gathers those of a layer while it runs.

    Every layer is a group of its own, all else is one group: in a masked-LM model, embeddings and
    head share weights and biases, which fully_shard can't have in two groups. Attention meets
    plain tensors alone.

    Args:
        model: a transformers model, changed in place.

    Raises:
        RuntimeError: torch.distributed is not initialised.
    """
    from torch.distributed.fsdp import fully_shard

    if not dist.is_initialized():
        raise RuntimeError(
            "spreading parameters needs a process group: start the script with torchrun and call "
            "torch.distributed.init_process_group() first"
        )
    for layer in _layers(model):
        fully_shard(layer)
    fully_shard(model)


def shard_for_accelerate(model: nn.Module, accelerator: Any) -> None:
    """Shards a model before accelerate does, if it was told to by FSDP2.

    What accelerate makes groups of holds shared weights twice in masked-LM models, which PyTorch
    refuses. A model that is sharded already it takes as it is. Checkpoints will hold the whole
    model, for a plain ``from_pretrained``.

    Args:
        model: a transformers model, changed in place.
        accelerator: that will prepare it, an ``accelerate.Accelerator``.
    """
    if accelerator.is_fsdp2:
        shard_parameters(model)
        plugin = accelerator.state.fsdp_plugin
        # It would look for layers by the names of classes that they no longer have.
        plugin.auto_wrap_policy = None
        plugin.state_dict_config = plugin.optim_state_dict_config = None  # follow from the type
        plugin.set_state_dict_type("FULL_STATE_DICT")


def _layers(module: nn.Module) -> list[nn.Module]:
    """What stands in the outermost lists of modules."""
    found: list[nn.Module] = []
    for child in module.children():
        found += list(child) if isinstance(child, nn.ModuleList) else _layers(child)
    return found
