"""Learned position tables: where they are, and how they reach further."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

Method = Literal["tile", "interpolate"]
METHODS: tuple[Method, ...] = ("tile", "interpolate")


@dataclass(frozen=True)
class PositionTable:
    """A learned position table and how its rows are used.

    Attributes:
        module: what holds it, as ``position_embeddings``.
        table: the table.
        start: row that the default ids beside it begin with. The config does not count the rows
            before it.
        reserved: rows before the first token's; at least ``start``.
    """

    module: nn.Module
    table: nn.Embedding
    start: int
    reserved: int

    @property
    def positions(self) -> int:
        """Tokens that the table has positions for."""
        return self.table.num_embeddings - self.reserved

    @property
    def learned(self) -> Tensor:
        """Rows of the tokens' positions, [positions, channels]."""
        return self.table.weight.detach()[self.reserved :]


def position_tables(model: nn.Module) -> list[PositionTable]:
    """Every learned position table of a model; one without has none."""
    found = []
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding):
            ids = dict(module.named_buffers(recurse=False)).get("position_ids")
            start = 0 if ids is None else int(ids[0, 0])
            # RoBERTa counts from behind the padding's row, MRA and Nyströmformer from where the
            # default ids start, others from the first row.
            reserved = start if table.padding_idx is None else table.padding_idx + 1
            found.append(PositionTable(module, table, start, reserved))
    return found


def longest_input(model: PreTrainedModel) -> int | None:
    """Tokens that a model has positions for, by its learned tables or else its config.

    Returns:
        The number; None where neither says one.
    """
    tables = position_tables(model)
    if tables:
        return min(one.positions for one in tables)
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def extend_positions(model: PreTrainedModel, length: int, method: Method = "tile") -> int | None:
    """Has learned positions reach ``length`` tokens.

    Args:
        model: an encoder; changed in place, with its config. One without learned positions, or
            with enough of them, stays as it is.
        length: number of tokens.
        method: ``"tile"`` repeats the learned positions, ``"interpolate"`` spreads them evenly,
            the first and the last staying the first and the last.

    Returns:
        The number of positions that were learned if there were too few, otherwise None.
    """
    learned = None
    for one in position_tables(model):
        if one.positions >= length:
            continue
        learned = one.positions
        rows = (_tiled if method == "tile" else _interpolated)(one.learned, length)
        weight = torch.cat((one.table.weight.detach()[: one.reserved], rows))
        one.module.position_embeddings = nn.Embedding.from_pretrained(
            weight,
            freeze=not one.table.weight.requires_grad,
            padding_idx=one.table.padding_idx,
        )
        _resize_buffers(one.module, one.start, len(weight))
        model.config.max_position_embeddings = len(weight) - one.start
    return learned


def fit_budget(model: PreTrainedModel, learned: int | None, length: int) -> None:
    """Has an MRA model spend what it would if its position table were made for ``length`` tokens.

    Its budget of exact blocks is that of the longest sequence, so a table that was extended for
    the longest of several lengths would make the others exact.

    Args:
        model: an encoder whose positions were extended; models without such a budget stay as they
            are.
        learned: what `extend_positions` gave.
        length: number of tokens to be read next.
    """
    if learned is not None and model.config.model_type == "mra":
        model.config.max_position_embeddings = max(learned, length)


def _tiled(learned: Tensor, length: int) -> Tensor:
    return learned[torch.arange(length, device=learned.device) % len(learned)]


def _interpolated(learned: Tensor, length: int) -> Tensor:
    # In double precision, so that where a learned row stays it stays as it is.
    spread = functional.interpolate(
        learned.cpu().double().t()[None], size=length, mode="linear", align_corners=True
    )
    return spread[0].t().to(learned)


def _resize_buffers(module: nn.Module, start: int, end: int) -> None:
    """Makes the default ids that lie beside a position table as long as the table."""
    device = next(module.parameters()).device
    defaults = {
        "position_ids": torch.arange(start, end, device=device)[None],
        "token_type_ids": torch.zeros(1, end - start, dtype=torch.long, device=device),
    }
    # Some families keep the ids in their checkpoints.
    kept = module.state_dict()
    for name, values in defaults.items():
        if name in dict(module.named_buffers(recurse=False)):
            module.register_buffer(name, values, persistent=name in kept)
