"""Says what is wrong with an input beyond a model's learned positions, and what to do.

Where MRA is asked for long inputs are to be expected; what models say themselves is about the sizes
of some tensors, and on a GPU nothing at all. A class is changed once, when one of its models is
first given one of our implementations, and does what it did wherever it has none.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import Tensor, nn

from .config_attention import IMPLEMENTATIONS

_TABLES = ("position_embeddings", "embed_positions")


def tell_of_excess_length(model_class: Any) -> None:
    """Has a model class look at the length of its input before anything else."""
    owner = next(one for one in model_class.__mro__ if "forward" in vars(one))
    own = owner.forward
    if owner is nn.Module or getattr(own, "_tells_of_excess_length", False):
        return
    names = list(inspect.signature(own).parameters)[1:]

    def argument(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = names.index(name) if name in names else len(args)
        return args[place] if place < len(args) else kwargs.get(name)

    @functools.wraps(own)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _asks_for_ours(self) and argument("position_ids", args, kwargs) is None:
            ids = argument("input_ids", args, kwargs)
            tokens = ids if ids is not None else argument("inputs_embeds", args, kwargs)
            _check_length(self, tokens, ids)
        return own(self, *args, **kwargs)

    forward._tells_of_excess_length = True  # type: ignore[attr-defined]
    owner.forward = forward


def _asks_for_ours(model: Any) -> bool:
    config = getattr(model, "config", None)
    return config is not None and config._attn_implementation in IMPLEMENTATIONS


def _check_length(model: Any, tokens: Any, ids: Any) -> None:
    most, padding = _positions(model)
    if most is None or not isinstance(tokens, Tensor) or tokens.ndim < 2:
        return
    length = tokens.shape[1]
    if length <= most:
        return
    if padding is not None and isinstance(ids, Tensor):
        # Such models count real tokens alone. Only here, beyond the table, is worth a look.
        length = int((ids != padding).sum(1).max())
        if length <= most:
            return
    raise ValueError(
        f"the input has {length} tokens, and the model positions for {most} "
        "(max_position_embeddings); cut the input, with a tokenizer by truncation=True and "
        f"max_length={most}, or make a model that reads as much: mra convert MODEL FOLDER "
        f"--max-length {length}"
    )


def _positions(model: Any) -> tuple[int | None, int | None]:
    """Tokens that a model has learned positions for, and the id of padding if it is not counted."""
    for holder in (getattr(model, "embeddings", None), model):
        for name in _TABLES:
            table = getattr(holder, name, None)
            if isinstance(table, nn.Embedding) and isinstance(offset := _offset(table), int):
                ids = getattr(holder, "position_ids", None)
                rows = ids.shape[1] if isinstance(ids, Tensor) else table.num_embeddings
                return rows - offset, table.padding_idx
    return None, None


def _offset(table: nn.Embedding) -> int | None:
    """Rows of a table before the first token's, or None if it is none of the kinds that count."""
    if type(table) is not nn.Embedding:
        return getattr(table, "offset", None)
    return 0 if table.padding_idx is None else table.padding_idx + 1
