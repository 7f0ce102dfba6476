"""The transformers models in a module, their configs, and copies that share its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import chain
from typing import TypeVar

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

Model = TypeVar("Model", bound=nn.Module)


def encoders_in(model: nn.Module) -> list[PreTrainedModel]:
    """The transformers models in ``model``, outermost first."""
    return [module for module in model.modules() if isinstance(module, PreTrainedModel)]


def at_least_one_encoder_in(model: object) -> list[PreTrainedModel]:
    """The same, for what a caller gave.

    Raises:
        TypeError: there is none.
    """
    found = encoders_in(model) if isinstance(model, nn.Module) else []
    if not found:
        raise TypeError(
            "model must be, or hold, a transformers PreTrainedModel; "
            f"{type(model).__name__} does not"
        )
    return found


def configs_in(models: Iterable[nn.Module]) -> list[PreTrainedConfig]:
    """Every config that a layer of ``models`` may read its attention from, each once."""
    found: dict[int, PreTrainedConfig] = {}

    def collect(config: object) -> None:
        if isinstance(config, PreTrainedConfig) and id(config) not in found:
            found[id(config)] = config
            for key in config.sub_configs:
                collect(getattr(config, key, None))

    for model in models:
        for module in model.modules():
            collect(getattr(module, "config", None))
    return list(found.values())


def copy_with_same_weights(model: Model) -> Model:
    """A copy of ``model`` with parameters and buffers that are the same tensors in memory."""
    return copy.deepcopy(model, {id(x): x for x in chain(model.parameters(), model.buffers())})
