"""What a checkpoint is to become, and what became of it."""

from dataclasses import dataclass, field
from typing import Any

import torch

from mra_plugin.encoders.closeness import Closeness
from mra_plugin.encoders.positions import Method


@dataclass(frozen=True)
class ConversionRequest:
    """What a checkpoint is to become.

    Attributes:
        max_length: tokens; None means as many as it reads already.
        positions: how a learned position table is extended.
        attention: name of a registered backend.
        params: its parameters, as far as they are given.
        mra_family: whether to make an MRA-family model of it.
        drop: parts to leave out.
        lengths: where to measure closeness; None means `SHORTEST_SUMMARY`, twice that, and so on.
        device: where to run the checks.
    """

    max_length: int | None = None
    positions: Method = "tile"
    attention: str = "mra"
    params: dict[str, Any] = field(default_factory=dict)
    mra_family: bool = False
    drop: tuple[str, ...] = ()
    lengths: list[int] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Converted:
    """What was written, and what the checks found.

    Attributes:
        architecture: class of the model.
        before: tokens that it read.
        after: tokens that it reads.
        positions: their kind, see `stretching.kind_of_positions`.
        params: parameters of its attention.
        dtype: of its weights.
        weight_bytes: their size.
        left_out: tensors of the checkpoint that are not in it.
        sentence_transformer: class of sentence-transformers that it is a model of, if it is one.
        modules: classes of its modules.
        checked: tokens of the comparison with the old model.
        difference: the greatest relative one to the old model, with a full budget.
        seen_difference: the same of what sentence-transformers gives for short texts; None where
            it could not be asked.
        closeness: to exact attention, by length.
    """

    architecture: str
    before: int
    after: int
    positions: str
    params: dict[str, Any]
    dtype: torch.dtype
    weight_bytes: int
    left_out: list[str]
    sentence_transformer: str | None
    modules: list[str]
    checked: int
    difference: float
    seen_difference: float | None
    closeness: list[Closeness]
