"""Which keys are exact for which queries: pool, find salient keys, score, choose.

Shared by all that works with blocks, so that all of it means the same ones.
Counts are compared by `torch.sym_min`: where a tracer left a length open, `min` would decide by the
example's.
Shapes: B batch, H heads, X query blocks, Y key blocks, Z cells of keys, D channels, g salient keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import block_count, by_head, count_tokens, fill_up, pool
from .options import MRAOptions

# Added in float64 for every prior that a pair falls under: beyond any difference of scores, and
# small enough that the scores keep seven digits behind it.
_PRIOR = 1e9

# Query blocks whose means say which keys are salient.
_PROBES = 64


class Means(NamedTuple):
    """Means of queries by block and of keys by cell, and how many tokens each was made of.

    Padding takes no part, nor do salient keys.

    Attributes:
        query: [B, H, X, D], in the accumulation type.
        key: [B, H, Z, D], likewise.
        query_counts: [B, X].
        key_counts: [B, 1 or H, Z]; salient keys differ from head to head.
    """

    query: Tensor
    key: Tensor
    query_counts: Tensor
    key_counts: Tensor


class Masses(NamedTuple):
    """What cells are estimated to weigh, n_z e^{ŝ_xz}, in numbers that floats can hold.

    Attributes:
        weights: n_z e^{ŝ_xz - reference_x}, [B, H, X, Z].
        reference: the greatest ŝ_xz + log n_z of the row, [B, H, X, 1]; 0 if there is none.
    """

    weights: Tensor
    reference: Tensor


class Plan(NamedTuple):
    """What a call does with its queries and keys.

    Attributes:
        means: of its blocks and cells.
        scores: coarse scores ŝ, [B, H, X, Z].
        masses: of the cells, if blocks are chosen by them; without gradients.
        chosen: the pairs of blocks that are exact, bool [B, H, X, Y].
        salient: the keys that every query sees exactly, int64 [B, H, g]; -1 is none.
    """

    means: Means
    scores: Tensor
    masses: Masses | None
    chosen: Tensor
    salient: Tensor


def plan_blocks(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
    *,
    score: Callable[[Means], Tensor] | None = None,
    chosen: Tensor | None = None,
    salient: Tensor | None = None,
) -> Plan:
    """Pools queries and keys, finds salient keys, scores the pairs of blocks, and chooses.

    Means and scores have gradients, choices have none.

    Args:
        query: [B, H, Nq, D]; those that are served come first.
        key: [B, H, Nk, D].
        key_padding_mask: bool [B, Nk], True = a real token; None = all real.
        query_padding_mask: bool [B, Nq], likewise.
        options: block and cell size, budget, salient keys, block score, selection, priors.
        scale: factor of the scores.
        score: gives the coarse scores [B, H, X, Z] where they are not those of the means.
        chosen: pairs that were chosen before, bool [B, H, X, Y], as in a backward.
        salient: keys that were found before, int64 [B, H, g].
    """
    batch, size, device = query.shape[0], options.block_size, query.device
    query_counts = count_tokens(query_padding_mask, batch, query.shape[-2], size, device)
    query_means = pool(query, query_padding_mask, query_counts, size)
    if salient is None:
        salient = find_salient(query_means, query_counts, key, key_padding_mask, options, scale)
    averaged = averaged_keys(key_padding_mask, salient, key)
    cell = options.cell_size
    key_counts = by_head(count_tokens(averaged, batch, key.shape[-2], cell, device))
    means = Means(query_means, pool(key, averaged, key_counts, cell), query_counts, key_counts)
    scores = coarse_scores(means, scale) if score is None else score(means)
    masses = cell_masses(scores, key_counts) if options.block_score == "mass" else None
    if chosen is None:
        visible = visible_pairs(query_counts, by_block(key_counts, options).sum(-1))
        chosen = choose_blocks(block_scores(scores, masses, means, options), visible, options)
        if options.exact_up_to:
            chosen = chosen | (visible & is_short(key_padding_mask, key, options))
    return Plan(means, scores, masses, chosen, salient)


@torch.no_grad()
def find_salient(
    query_means: Tensor,
    query_counts: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    options: MRAOptions,
    scale: float,
) -> Tensor:
    """The keys that take the greatest share of the attention of some query blocks' means.

    These are all query blocks, or 64 spread evenly if there are more. The shares are added up;
    among equals the lowest index comes first.

    Args:
        query_means: [B, H, X, D]; those of blocks that are served come first.
        query_counts: [B, X].
        key: [B, H, Nk, D].
        key_padding_mask: bool [B, Nk] or None.
        options: how many.
        scale: factor of the scores.

    Returns:
        int64 [B, H, g] in rising order; -1 in front where there are fewer real keys.
    """
    batch, heads, _, channels = query_means.shape
    asked, length = options.salient_keys, key.shape[-2]
    if not asked or not query_means.numel() or not length:
        return torch.full((batch, heads, asked), -1, dtype=torch.int64, device=key.device)
    rows = (query_counts > 0).sum(-1, keepdim=True)  # [B, 1]
    probe = torch.arange(torch.sym_min(_PROBES, query_means.shape[-2]), device=key.device)  # [P]
    block = torch.where(rows > _PROBES, (2 * probe + 1) * rows // (2 * _PROBES), probe)  # [B, P]
    block = block.clamp(max=query_means.shape[-2] - 1)
    index = block[:, None, :, None].expand(batch, heads, -1, channels)
    probes = query_means.gather(2, index)  # [B, H, P, D]
    scores = torch.matmul(probes * scale, key.to(probes.dtype).transpose(-1, -2))  # [B, H, P, Nk]
    if key_padding_mask is not None:
        scores.masked_fill_(~key_padding_mask[:, None, None, :], float("-inf"))
    shares = torch.softmax(scores, -1)
    counted = (probe < rows)[:, None, :, None]
    importance = shares.masked_fill_(~counted, 0).sum(-2, keepdim=True)  # [B, H, 1, Nk]
    # What is no number is no more important than others, nor is padding anything.
    importance.masked_fill_(importance.isnan(), float("-inf"))
    if key_padding_mask is not None:
        importance.masked_fill_(~key_padding_mask[:, None, None, :], float("-inf"))
    most = torch.sym_min(asked, length)
    marks = _top(importance, most).squeeze(-2)
    places = torch.arange(length, device=key.device)
    found = torch.where(marks, places, -1).topk(most, -1).values.flip(-1)
    return torch.nn.functional.pad(found, (asked - found.shape[-1], 0), value=-1)


def averaged_keys(key_padding_mask: Tensor | None, salient: Tensor, key: Tensor) -> Tensor | None:
    """The real keys that are not salient, bool [B, Nk] or [B, H, Nk]; None means all.

    Args:
        key_padding_mask: bool [B, Nk] or None.
        salient: int64 [B, H, g].
        key: [B, H, Nk, D].
    """
    if not salient.shape[-1]:
        return key_padding_mask
    others = ~salient_marks(salient, key.shape[-2])
    return others if key_padding_mask is None else others & key_padding_mask[:, None]


def pool_values(
    value: Tensor, key_padding_mask: Tensor | None, plan: Plan, options: MRAOptions
) -> Tensor:
    """Means of the values of each cell, [B, H, Z, Dv]; padding and salient keys take no part."""
    averaged = averaged_keys(key_padding_mask, plan.salient, value)
    return pool(value, averaged, plan.means.key_counts, options.cell_size)


def salient_marks(salient: Tensor, length: int) -> Tensor:
    """Salient keys, int64 [B, H, g], as bool [B, H, Nk]."""
    # What is none goes to a place of its own.
    marks = torch.zeros(*salient.shape[:2], length + 1, dtype=torch.bool, device=salient.device)
    return marks.scatter(-1, salient + 1, True)[..., 1:]


def is_short(key_padding_mask: Tensor | None, key: Tensor, options: MRAOptions) -> Tensor:
    """Which sequences have so few real keys that all of them are exact, bool [B, 1, 1, 1]."""
    if key_padding_mask is None:
        real = torch.full((key.shape[0],), key.shape[-2], device=key.device)
    else:
        real = key_padding_mask.sum(-1)
    return (real <= options.exact_up_to)[:, None, None, None]


def coarse_scores(means: Means, scale: float) -> Tensor:
    """ŝ_xz = scale · q̂_x · k̂_z, [B, H, X, Z]."""
    return torch.matmul(means.query * scale, means.key.transpose(-1, -2))


def by_block(x: Tensor, options: MRAOptions) -> Tensor:
    """Cells [..., Z] as those of each block, [..., Y, cells per block], with zeros behind."""
    cells = options.block_size // options.cell_size
    blocks = block_count(x.shape[-1], cells)
    return torch.unflatten(fill_up(x, -1, blocks * cells), -1, (blocks, cells))


@torch.no_grad()
def cell_masses(scores: Tensor, key_counts: Tensor) -> Masses:
    """What cells are estimated to weigh.

    Args:
        scores: coarse scores ŝ, [B, H, X, Z].
        key_counts: n_z, [B, 1 or H, Z].
    """
    mass = scores + key_counts.to(scores.dtype).log()[..., None, :]
    if not mass.numel():
        return Masses(mass, mass.new_zeros(*mass.shape[:-1], 1))
    reference = mass.amax(-1, keepdim=True)
    reference = reference.masked_fill(reference == float("-inf"), 0)
    return Masses(mass.sub_(reference).exp_(), reference)


@torch.no_grad()
def block_scores(
    scores: Tensor, masses: Masses | None, means: Means, options: MRAOptions
) -> Tensor:
    """What blocks are chosen by, [B, H, X, Y].

    ``"mean"``: what the mean of a block's keys scores. ``"mass"``: the logarithm of the share of
    the row that its cells are estimated to have, Σ_{z∈y} n_z e^{ŝ_xz} over Σ_z n_z e^{ŝ_xz}. Shares
    too small for a float are equal.

    Args:
        scores: coarse scores ŝ, [B, H, X, Z].
        masses: of the cells, for ``"mass"``.
        means: of blocks and cells.
        options: block and cell size, block score.
    """
    if masses is not None:
        blocks = by_block(masses.weights, options).sum(-1)
        shares = blocks / blocks.sum(-1, keepdim=True)
        return shares.clamp(min=torch.finfo(shares.dtype).tiny).log()
    if options.cell_size == options.block_size:
        return scores
    counts = means.key_counts[..., None, :]  # [B, 1 or H, 1, Z]
    sums = by_block(scores * counts, options).sum(-1)
    return sums / by_block(counts, options).sum(-1).clamp(min=1)


def visible_pairs(query_counts: Tensor, key_counts: Tensor) -> Tensor:
    """Which blocks may see each other at all: those that hold a token.

    Args:
        query_counts: tokens per query block, [B, X].
        key_counts: tokens per key block that are not salient, [B, 1 or H, Y].

    Returns:
        bool [B, 1 or H, X, Y].
    """
    return (query_counts > 0)[:, None, :, None] & (key_counts > 0)[:, :, None, :]


@torch.no_grad()
def choose_blocks(scores: Tensor, visible: Tensor, options: MRAOptions) -> Tensor:
    """The block pairs that get exact attention (paper, section 4.3).

    Takes exactly the budget, or every visible pair if there are fewer; ties go to the lowest pair
    index, so the choice is deterministic.

    Args:
        scores: what blocks are chosen by, [B, H, X, Y].
        visible: pairs that there are to choose from, bool [B, 1 or H, X, Y].
        options: budget, selection and priors.

    Returns:
        bool [B, H, X, Y].
    """
    blocks_x, blocks_y = scores.shape[-2:]
    if scores.numel() == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    keys = scores.masked_fill(~visible, float("-inf"))
    if options.block_score == "mean":
        # Rows are compared by how far each pair falls behind its row's best one.
        keys.sub_(keys.amax(-1, keepdim=True))
    keys = _add_priors(keys, options)
    # Rows that see nothing are -inf - -inf = nan now; nor is anything chosen by a score that is no
    # number, or it would take the budget of others.
    keys.masked_fill_(~visible | keys.isnan(), float("-inf"))
    if options.selection == "per_row":
        return _top(keys[..., None, :], torch.sym_min(options.block_per_row, blocks_y)).squeeze(-2)
    if options.num_blocks is not None:
        return _top(keys, torch.sym_min(options.num_blocks, blocks_x * blocks_y))
    most = torch.sym_min(options.block_per_row * blocks_x, blocks_x * blocks_y)
    rows = visible.any(-1).sum(-1)  # [B, 1 or H]
    return _top(keys, most, (options.block_per_row * rows).clamp(max=most)[..., None])


def _add_priors(keys: Tensor, options: MRAOptions) -> Tensor:
    first = options.initial_prior_first_n_blocks
    diagonal = options.initial_prior_diagonal_n_blocks
    if not first and not diagonal:
        return keys
    rows = torch.arange(keys.shape[-2], device=keys.device)[:, None]
    columns = torch.arange(keys.shape[-1], device=keys.device)[None, :]
    priors = (rows < first).double() + (columns < first).double()
    if diagonal:
        priors = priors + ((rows - columns).abs() <= diagonal // 2).double()
    return keys.double() + _PRIOR * priors


def _top(keys: Tensor, most: int, budget: Tensor | None = None) -> Tensor:
    """Marks the ``budget`` (by default ``most``) greatest finite keys of each matrix.

    ``keys`` is [..., X, Y]; ``budget`` an integer tensor that broadcasts against [..., 1], at most
    ``most``.
    """
    flat = keys.flatten(-2)
    if budget is None:
        budget = keys.new_full((1,), most, dtype=torch.int64)
        threshold = torch.topk(flat, most, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    else:
        ordered = torch.topk(flat, most, dim=-1, sorted=True).values
        last = (budget - 1).clamp(min=0).expand(*flat.shape[:-1], 1)
        threshold = ordered.gather(-1, last)
    threshold = threshold[..., None]
    above = keys > threshold
    # What is -inf is no real pair; nothing equals nan.
    ties = keys == threshold.masked_fill(threshold == float("-inf"), float("nan"))
    spare = budget - above.flatten(-2).sum(-1, keepdim=True)
    return above | _first(ties, spare)


def _first(marks: Tensor, spare: Tensor) -> Tensor:
    """Keeps the first ``spare`` [..., 1] marks of each matrix [..., X, Y].

    Row by row: a GPU sums up many short rows much faster than few long ones.
    """
    in_row = marks.sum(-1, dtype=torch.int32)
    left = spare - (in_row.cumsum(-1, dtype=torch.int32) - in_row)  # [..., X]
    return marks & (marks.cumsum(-1, dtype=torch.int32) <= left[..., None])
