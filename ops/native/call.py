"""A call as the compiled library takes it: sizes, options, and where tensors lie.

`Call` is what `source/call.h` says, field by field.
"""

from __future__ import annotations

from ctypes import Structure, c_double, c_int64, c_void_p
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..problem import Problem

# As in `source/call.h`, to be raised with every change of `Call`.
INTERFACE = 1

_TYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


class _Tensor(Structure):
    """Where a tensor lies, and its strides; nothing for None."""

    _fields_: ClassVar[list[Any]] = [("data", c_void_p), ("strides", c_int64 * 4)]

    @classmethod
    def of(cls, x: Tensor | None) -> _Tensor:
        """A tensor [B, H, N, C], log-sum-exps [B, H, N] or a mask [B, N]."""
        if x is None:
            return cls()
        strides = list(x.stride())
        if x.dim() == 2:
            strides.insert(1, 0)
        return cls(x.data_ptr(), (c_int64 * 4)(*strides))


_TENSORS = (
    *("query", "key", "value", "key_mask", "query_mask", "out", "lse", "chosen", "salient"),
    *("grad_out", "grad_lse", "grad_query", "grad_key", "grad_value"),
)


class Call(Structure):
    """Both directions of a call."""

    _fields_: ClassVar[list[Any]] = [
        ("type", c_int64),
        *((name, c_int64) for name in ("batch", "heads", "queries", "keys")),
        *((name, c_int64) for name in ("channels", "value_channels")),
        *((name, c_int64) for name in ("block_size", "block_per_row", "num_blocks", "full")),
        *((name, c_int64) for name in ("first_blocks", "diagonal_blocks", "per_row")),
        *((name, c_int64) for name in ("cell_size", "salient_keys", "by_mass", "exact_up_to")),
        ("scale", c_double),
        *((name, _Tensor) for name in _TENSORS),
    ]

    @classmethod
    def of(cls, problem: Problem, **tensors: Tensor | None) -> Call:
        """A call with its results, and in a backward with their gradients and room for its own."""
        query, value, options = problem.query, problem.value, problem.options
        given = {
            "query": query,
            "key": problem.key,
            "value": value,
            "key_mask": problem.key_padding_mask,
            "query_mask": problem.query_padding_mask,
            **tensors,
        }
        return cls(
            type=_TYPES[query.dtype],
            batch=query.shape[0],
            heads=query.shape[1],
            queries=query.shape[2],
            keys=value.shape[2],
            channels=query.shape[3],
            value_channels=value.shape[3],
            block_size=options.block_size,
            block_per_row=options.block_per_row,
            num_blocks=options.num_blocks or 0,
            full=problem.is_full,
            first_blocks=options.initial_prior_first_n_blocks,
            diagonal_blocks=options.initial_prior_diagonal_n_blocks,
            per_row=options.selection == "per_row",
            cell_size=options.cell_size,
            salient_keys=options.salient_keys,
            by_mass=options.block_score == "mass",
            exact_up_to=options.exact_up_to,
            scale=problem.scale,
            **{name: _Tensor.of(x) for name, x in given.items()},
        )
