"""Which block pairs are exact, by kernels over the matrix of pairs.

The same choice as `mra_plugin.ops.plan` makes, in a few passes over one matrix of integers.
Shapes: B batch, H heads, X query and Y key blocks.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from ..blocks import by_head
from ..launching import run
from ..options import MRAOptions
from ..parts import parts
from ..plan import by_block, is_short, visible_pairs
from ..problem import Problem, empty_choice
from .arguments import padded
from .kept import MeansWithValues
from .kernels.choosing import (
    mark_kernel,
    rank_by_mass_kernel,
    rank_kernel,
    select_kernel,
    tally_kernel,
)
from .tuning import coarse_launch, score_precision

# Bytes of one [heads, X, Y] matrix of ranks: the only thing but the choice itself that grows with
# the square of the length, so heads are taken a few at a time.
_RANK_BYTES = 256 << 20
# Ranks that one program holds in registers; longer lines are searched by torch.topk.
_WIDTHS = (256, 1024, 4096, 16384)
_WIDTH = 1024


def choose(problem: Problem, means: MeansWithValues) -> Tensor:
    """The chosen blocks, bool [B, H, X, Y]."""
    chosen = empty_choice(problem.query, problem.key, problem.options.block_size)
    if not chosen.numel():
        return chosen
    for part in choice_parts(problem):
        ranks = rank_pairs(problem, means, part)
        query_counts = means.query_counts[part[0]]
        select(ranks, query_counts, problem, chosen[part].view(torch.int8))
    if problem.short_blocks:
        chosen |= _short_pairs(problem, means)
    return chosen


def _short_pairs(problem: Problem, means: MeansWithValues) -> Tensor:
    """All pairs of sequences that are exact as a whole, bool [B, 1 or H, X, Y]."""
    options = problem.options
    held = by_block(by_head(means.key_counts), options).sum(-1)
    short = is_short(problem.key_padding_mask, problem.key, options)
    return visible_pairs(means.query_counts, held) & short


def choice_parts(problem: Problem) -> list[tuple[slice, slice]]:
    """Batch rows and heads whose ranks are formed together."""
    batch, heads = problem.query.shape[:2]
    rank_bytes = problem.blocks_x * problem.blocks_y * _dtype(problem.options).itemsize
    return list(parts(batch, heads, _RANK_BYTES // rank_bytes))


def rank_pairs(problem: Problem, means: MeansWithValues, part: tuple[slice, slice]) -> Tensor:
    """Ranks of all pairs of some heads, int32 or, with priors, int64 [B, H, X, Y]."""
    own = means.at(part)
    batch, heads, blocks_x, channels = own.query.shape
    blocks_y, cells = problem.blocks_y, own.key.shape[2]
    options, bits = problem.options, _bits(problem.options)
    launch = coarse_launch(cells, padded(channels), problem.query.dtype)
    ranks = torch.empty(
        batch,
        heads,
        blocks_x,
        blocks_y,
        dtype=_dtype(options),
        device=own.query.device,
    )
    run(
        rank_kernel if options.block_score == "mean" else rank_by_mass_kernel,
        batch * heads * triton.cdiv(blocks_x, launch.rows),
        own.query,
        own.key,
        own.query_counts,
        own.key_counts,
        ranks,
        problem.scale,
        heads,
        blocks_x,
        blocks_y,
        cells,
        own.heads_sharing,
        options.initial_prior_first_n_blocks,
        options.initial_prior_diagonal_n_blocks,
        CHANNELS=channels,
        PADDED_CHANNELS=padded(channels),
        ROWS=launch.rows,
        COLUMNS=launch.step,
        CELLS=options.block_size // options.cell_size,
        HAS_PRIORS=bits > 31,
        BITS=bits,
        PRECISION=score_precision(problem.query.dtype),
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    return ranks


def select(ranks: Tensor, query_counts: Tensor, problem: Problem, chosen: Tensor) -> None:
    """Marks the best pairs in ``chosen``, int8 of the shape of ``ranks``."""
    options = problem.options
    _, heads, blocks_x, blocks_y = ranks.shape
    rows = 1 if options.selection == "per_row" else blocks_x
    length = rows * blocks_y
    width = next((width for width in _WIDTHS if length <= width), None)
    if width is None:
        _select_long(ranks, rows, query_counts, problem, chosen)
        return
    budget = options.num_blocks or options.block_per_row
    run(
        select_kernel,
        ranks.numel() // length,
        ranks,
        query_counts,
        chosen,
        # No line has more, and larger numbers would not fit.
        min(budget, length),
        length,
        heads,
        blocks_x,
        WIDTH=width,
        BITS=_bits(options),
        PER_QUERY_BLOCK=rows > 1 and options.num_blocks is None,
        num_warps=max(1, min(16, width // 1024)),
    )


def _select_long(
    ranks: Tensor, rows: int, query_counts: Tensor, problem: Problem, chosen: Tensor
) -> None:
    """The same for lines that no program can hold: torch finds the last rank of the budget."""
    batch, heads, blocks_x, blocks_y = ranks.shape
    lines = ranks.view(batch, heads, blocks_x // rows, rows * blocks_y)  # [B, H, L, rows·Y]
    most, budget = _budget(problem, rows, query_counts)
    best = lines.topk(most, largest=False, sorted=budget is not None).values
    if budget is None:
        last = best.amax(-1)  # [B, H, L]
    else:
        at = (budget - 1).clamp(min=0)[:, None, None, None].expand(*lines.shape[:3], 1)
        last = best.gather(-1, at).squeeze(-1)
    below, ties = torch.empty(2, *lines.shape[:3], rows, dtype=torch.int32, device=ranks.device)
    programs = ranks.numel() // blocks_y
    settings = {"WIDTH": _WIDTH, "BITS": _bits(problem.options)}
    run(tally_kernel, programs, ranks, last, below, ties, rows, blocks_y, **settings)
    left = (most if budget is None else budget[:, None, None]) - below.sum(-1)  # [B, H, L]
    spare = (left[..., None] - ties.cumsum(-1) + ties).clamp(min=0).to(torch.int32)
    run(mark_kernel, programs, ranks, last, spare, chosen, rows, blocks_y, **settings)


def _budget(problem: Problem, rows: int, query_counts: Tensor) -> tuple[int, Tensor | None]:
    """Pairs that a line of so many rows may choose at most, and int64 [B] where that varies."""
    options, length = problem.options, rows * problem.blocks_y
    if options.num_blocks is not None:
        return min(options.num_blocks, length), None
    most = min(options.block_per_row * rows, length)
    if rows == 1 or problem.query_padding_mask is None:
        return most, None
    return most, (options.block_per_row * (query_counts > 0).sum(-1)).clamp(max=most)


def _bits(options: MRAOptions) -> int:
    """Bits of a rank: those of a float without its sign, and two above for priors."""
    priors = options.initial_prior_first_n_blocks or options.initial_prior_diagonal_n_blocks
    return 33 if priors else 31


def _dtype(options: MRAOptions) -> torch.dtype:
    return torch.int32 if _bits(options) < 32 else torch.int64
