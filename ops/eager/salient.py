"""The salient term: exact attention of every query over the keys that are salient for its head.

A salient key in a block that was chosen is attended to there.
Shapes: B' batch rows and H' heads of the part, G = B'·H', b tokens per block, X query blocks, Y key
blocks, W channels, g salient keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .as_blocks import as_blocks, real_queries
from .part import Part
from .terms import Gradients, Whole


def attend(part: Part, out: Tensor, lse: Tensor) -> Tensor:
    """See `terms`."""
    scores = _scores(part, part.query)  # [G, X·b, g]
    before = lse.view(scores.shape[:2])
    shift = torch.maximum(before, scores.amax(-1))
    shift = shift.masked_fill(shift == float("-inf"), 0)
    weights = scores.sub_(shift[..., None]).exp_()
    kept = (before - shift).exp_()
    total = weights.sum(-1).add_(kept)
    share = total.masked_fill(total == 0, 1).reciprocal_()
    tokens = out.view(*scores.shape[:2], part.width)
    tokens.mul_((kept * share)[..., None])
    tokens.baddbmm_(weights.mul_(share[..., None]), _gathered(part, part.value))
    return total.log_().add_(shift).view_as(lse)


def gradients(part: Part, whole: Whole, grads: Gradients) -> None:
    """See `terms`."""
    query = real_queries(part)
    scores = _scores(part, query)
    heads, tokens, _ = scores.shape
    lse = whole.lse.view(heads, tokens, 1)
    grad_out = whole.grad_out.view(heads, tokens, -1).to(part.dtype)
    weights = scores.sub_(lse).exp_()
    grad_value = torch.bmm(weights.transpose(1, 2), grad_out)
    grad_scores = torch.bmm(grad_out, _gathered(part, part.value).transpose(1, 2))
    grad_scores.sub_(whole.delta.view(heads, tokens, 1)).mul_(weights).mul_(part.scale)
    grads.query.tokens().baddbmm_(grad_scores, _gathered(part, part.key))
    grad_key = torch.bmm(grad_scores.transpose(1, 2), _tokens(query, part))
    places = part.plan.salient.flatten(0, 1)
    real = places >= 0
    rows, places = real.nonzero(as_tuple=True)[0], places[real]
    for sink, grad in ((grads.key, grad_key), (grads.value, grad_value)):
        whole_grad = sink.tokens()
        flat = rows * whole_grad.shape[1] + places
        whole_grad.flatten(0, 1).index_add_(0, flat, grad[real])


def _scores(part: Part, query: Tensor) -> Tensor:
    """What queries score with salient keys, [G, X·b, g]; -inf for those in a chosen block."""
    keys = _gathered(part, part.key)
    scores = torch.bmm(_tokens(query, part), (keys * part.scale).transpose(1, 2))
    salient, chosen = part.plan.salient, part.plan.chosen
    block = salient.clamp(min=0) // part.block_size  # [B', H', g]
    index = block[:, :, None].expand(*chosen.shape[:3], -1)
    elsewhere = chosen.gather(-1, index) | (salient < 0)[:, :, None]  # [B', H', X, g]
    in_blocks = scores.view(*elsewhere.shape[:3], part.block_size, -1)
    in_blocks.masked_fill_(elsewhere[..., None, :], float("-inf"))
    return scores


def _tokens(query: Tensor, part: Part) -> Tensor:
    """Queries [B', H', Nq, D] as [G, X·b, W]."""
    heads = query.shape[0] * query.shape[1]
    return as_blocks(query, part).view(heads, -1, part.width).to(part.dtype)


def _gathered(part: Part, x: Tensor) -> Tensor:
    """Salient keys or values of [B', H', Nk, C], [G, g, W]; any where there is none."""
    index = part.plan.salient.clamp(min=0)[..., None].expand(-1, -1, -1, x.shape[-1])
    rows = x.gather(2, index).flatten(0, 1).to(part.dtype)
    none = (part.plan.salient < 0).flatten(0, 1)[..., None]
    # Whatever stands at padding: 0 times nan would be nan.
    rows = rows.masked_fill(none, 0)
    missing = part.width - rows.shape[-1]
    return torch.nn.functional.pad(rows, (0, missing)) if missing else rows
