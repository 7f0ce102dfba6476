"""The coarse half of MRA: pooling blocks, scoring block pairs, choosing the exact ones.

Shared by every implementation, so that all of them choose the same blocks.
Shapes: B batch, H heads, N tokens, b tokens per block, X query blocks, Y key blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .options import MRAOptions

# Added in float64 for every prior that a pair falls under: beyond any difference of scores, and
# small enough that the scores keep seven digits behind it.
_PRIOR = 1e9


def block_count(length: int, block_size: int) -> int:
    """Blocks that ``length`` tokens fill; the last one may be short."""
    return (length + block_size - 1) // block_size


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for everything narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def count_tokens(
    padding_mask: Tensor | None, batch: int, length: int, block_size: int, device: torch.device
) -> Tensor:
    """Real tokens of each block: int64 [B, Y] from a bool mask [B, N] (or none)."""
    blocks = block_count(length, block_size)
    if padding_mask is None:
        starts = torch.arange(0, blocks * block_size, block_size, device=device)
        return (length - starts).clamp(max=block_size).expand(batch, blocks)
    tail = blocks * block_size - length
    padded = torch.nn.functional.pad(padding_mask, (0, tail)) if tail else padding_mask
    return torch.unflatten(padded, -1, (blocks, block_size)).sum(-1)


def pool(x: Tensor, padding_mask: Tensor | None, counts: Tensor, block_size: int) -> Tensor:
    """Mean of each block's real tokens, 0 where there are none.

    Args:
        x: [B, H, N, D].
        padding_mask: bool [B, N], True = a real token; None = all real.
        counts: real tokens per block, [B, Y].
        block_size: b.

    Returns:
        [B, H, Y, D] in the accumulation type of x (float32, or float64 for float64).
    """
    dtype = accumulation_dtype(x.dtype)
    blocks = counts.shape[-1]
    tail = blocks * block_size - x.shape[-2]
    if padding_mask is not None:
        x = x.masked_fill(~padding_mask[:, None, :, None], 0)
    if tail:
        x = torch.nn.functional.pad(x, (0, 0, 0, tail))
    sums = torch.unflatten(x, -2, (blocks, block_size)).sum(-2, dtype=dtype)
    return sums / counts.clamp(min=1)[:, None, :, None]


def coarse_scores(query_means: Tensor, key_means: Tensor, scale: float) -> Tensor:
    """ŝ_xy = scale · q̂_x · k̂_y: [B, H, X, D] and [B, H, Y, D] to [B, H, X, Y]."""
    return torch.matmul(query_means * scale, key_means.transpose(-1, -2))


@torch.no_grad()
def choose_blocks(
    scores: Tensor, query_counts: Tensor, key_counts: Tensor, options: MRAOptions
) -> Tensor:
    """The block pairs that get exact attention (paper, section 4.3).

    Takes exactly the budget, or every real pair if there are fewer; ties go to the lowest pair
    index, so the choice is deterministic.

    Args:
        scores: coarse scores ŝ, [B, H, X, Y].
        query_counts: real tokens per query block, [B, X].
        key_counts: real tokens per key block, [B, Y].
        options: budget, selection and priors.

    Returns:
        bool [B, H, X, Y]; False wherever a block holds no real token.
    """
    real_keys = (key_counts > 0)[:, None, None, :]
    real_queries = query_counts > 0
    blocks_x, blocks_y = scores.shape[-2:]
    if scores.numel() == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    keys = scores.masked_fill(~real_keys, float("-inf"))
    # Rows are compared by how far each pair falls behind its row's best one.
    keys.sub_(keys.amax(-1, keepdim=True))
    keys = _add_priors(keys, options)
    # Rows without a real key are -inf - -inf = nan: no pair of theirs is real either.
    keys.masked_fill_(~(real_keys & real_queries[:, None, :, None]), float("-inf"))
    if options.selection == "per_row":
        return _top(keys, min(options.block_per_row, blocks_y))
    flat = keys.flatten(-2)
    if options.num_blocks is not None:
        chosen = _top(flat, min(options.num_blocks, blocks_x * blocks_y))
    else:
        most = min(options.block_per_row * blocks_x, blocks_x * blocks_y)
        budget = (options.block_per_row * real_queries.sum(-1)).clamp(max=most)
        chosen = _top(flat, most, budget[:, None, None])
    return torch.unflatten(chosen, -1, (blocks_x, blocks_y))


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
    """Marks the ``budget`` (by default ``most``) greatest finite keys along the last axis.

    ``budget`` is an integer tensor that broadcasts against ``keys[..., :1]``, at most ``most``.
    """
    if budget is None:
        budget = keys.new_full((1,), most, dtype=torch.int64)
        threshold = torch.topk(keys, most, dim=-1, sorted=False).values.amin(-1, keepdim=True)
    else:
        ordered = torch.topk(keys, most, dim=-1, sorted=True).values
        last = (budget - 1).clamp(min=0).expand(*keys.shape[:-1], 1)
        threshold = ordered.gather(-1, last)
    above = keys > threshold
    ties = (keys == threshold) & (keys > float("-inf"))
    spare = budget - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1, dtype=torch.int32) <= spare))


def softmax_and_lse(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax and log-sum-exp over the last axis.

    Args:
        scores: [..., n], -inf where an entry takes no part.

    Returns:
        Probabilities [..., n] and log-sum-exp [...]; 0 and -inf, never nan, for a row of -inf.
    """
    if scores.shape[-1] == 0:
        return scores, scores.new_full(scores.shape[:-1], float("-inf"))
    shift = scores.detach().amax(-1, keepdim=True)
    shift = shift.masked_fill(shift == float("-inf"), 0)
    exponentials = torch.exp(scores - shift)
    sums = exponentials.sum(-1, keepdim=True)
    empty = sums == 0
    safe = sums.masked_fill(empty, 1)
    lse = (safe.log() + shift).masked_fill(empty, float("-inf"))
    return exponentials / safe, lse.squeeze(-1)
