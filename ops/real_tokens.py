"""Real tokens alone: padding is taken out before blocks are cut, wherever it lies.

Positions are ranks among the real tokens: these move to the front, in their order, and what is
padding goes behind them.

Queries that nobody calls padded are all served. In self-attention those at padded positions have
blocks of their own and change nothing for the others: a second pass over the same keys serves them.
Shapes: B batch, H heads, N tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import block_count
from .options import MRAOptions
from .problem import Problem


class Orders(NamedTuple):
    """Where tokens move to: places [B, N], or None where nothing moves.

    Attributes:
        query: int64 [B, Nq].
        key: int64 [B, Nk].
    """

    query: Tensor | None
    key: Tensor | None


def hides_nothing(mask: Tensor) -> bool:
    """Whether all tokens of a mask [B, N] are known to be real; looks where that costs nothing."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    # What stands for a tensor while a program is recorded or transformed can't be looked into.
    if type(mask) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(mask):
        return False
    return bool(mask.all())


def real_first(problem: Problem, *, look: bool = False) -> Orders:
    """The orders in which real tokens come first.

    Args:
        problem: a call.
        look: whether to look into the masks, so that nothing moves where padding lies behind
            already; waits for the device.
    """
    keys, queries = problem.key_padding_mask, problem.query_padding_mask
    key_order = _real_first(keys, look)
    return Orders(key_order if problem.serves_padding else _real_first(queries, look), key_order)


def _real_first(mask: Tensor | None, look: bool) -> Tensor | None:
    if mask is None or (look and not bool((mask[:, 1:] & ~mask[:, :-1]).any())):
        return None
    real = mask.sum(-1, keepdim=True)
    rank = torch.where(mask, mask.cumsum(-1), real + (~mask).cumsum(-1)) - 1
    return _inverse(rank)


def _inverse(order: Tensor) -> Tensor:
    """The order that undoes an order [B, N]."""
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter(-1, order, places)


def moved(problem: Problem, orders: Orders) -> Problem:
    """The call with its tokens in these orders."""
    if orders == (None, None):
        return problem
    masks = (
        None if mask is None or order is None else mask.gather(1, order)
        for mask, order in (
            (problem.key_padding_mask, orders.key),
            (problem.query_padding_mask, orders.query),
        )
    )
    key_mask, query_mask = masks
    return replace(
        problem,
        query=move(problem.query, orders.query),
        key=move(problem.key, orders.key),
        value=move(problem.value, orders.key),
        key_padding_mask=problem.key_padding_mask if key_mask is None else key_mask,
        query_padding_mask=problem.query_padding_mask if query_mask is None else query_mask,
    )


def move(x: Tensor, order: Tensor | None) -> Tensor:
    """Tokens of x, [B, H, N] or [B, H, N, D], in an order [B, N]; None leaves them as they are."""
    if order is None:
        return x
    index = order[:, None] if x.dim() == 3 else order[:, None, :, None]
    return x.gather(2, index.expand_as(x))


def move_back(x: Tensor, order: Tensor | None) -> Tensor:
    """Undoes `move`."""
    return x if order is None else move(x, _inverse(order))


def passes(problem: Problem) -> list[Problem]:
    """The same call for the real queries, and for those at padding where these are served.

    No query is real in both.
    """
    keys = problem.key_padding_mask
    if not problem.serves_padding or keys is None:
        return [problem]
    own = options_at_padding(problem.options, problem.blocks_x)
    return [
        replace(problem, query_padding_mask=keys),
        replace(problem, query_padding_mask=~keys, options=own),
    ]


def options_at_padding(options: MRAOptions, blocks_x: int) -> MRAOptions:
    """What queries at padding are served with: the same budget, row by row, and no priors."""
    budget = options.block_per_row
    if options.num_blocks is not None:
        budget = block_count(options.num_blocks, max(blocks_x, 1))
    return replace(
        options,
        selection="per_row",
        num_blocks=None,
        block_per_row=budget,
        initial_prior_first_n_blocks=0,
        initial_prior_diagonal_n_blocks=0,
    )
