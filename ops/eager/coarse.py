"""The coarse term: attention over the means of the cells in blocks that were not chosen.

Shapes: B' batch rows and H' heads of the part, G = B'·H', b tokens per block, X query and Y key
blocks, Z cells of keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..plan import averaged_keys, pool_values
from ..softmax import softmax_and_lse
from .part import Part
from .terms import Gradients, Whole, merge

# What is left beside the chosen blocks, as a share of the greatest cell. With less, floats would
# lose what a query sees that does not see the chosen blocks as its block's mean does.
_LEAST_MASS = 1e-25


def attend(part: Part, out: Tensor, lse: Tensor) -> Tensor:
    """See `terms`."""
    weights, coarse_lse, total = _weights(part)
    coarse_out = torch.matmul(weights, _value_means(part))  # [B', H', X, Dv]
    if total is not None:
        coarse_out.div_(total[..., None])
        coarse_lse = coarse_lse + total.log()
    missing = (0, part.width - coarse_out.shape[-1])
    if any(missing):
        coarse_out = torch.nn.functional.pad(coarse_out, missing)
    return merge(out, lse, coarse_out.reshape(-1, 1, part.width), coarse_lse.view(-1, 1))


def gradients(part: Part, whole: Whole, grads: Gradients) -> None:
    """See `terms`; to be called before other terms, as it covers every token.

    All queries of a block see the same coarse scores, so their gradients meet in one sum per
    block, each weighted by w_i = e^(reference_x - lse_i) <= 1.
    """
    means = part.plan.means
    weights, reference, _ = _weights(part)
    pulled, pulled_delta = _pulled(part, whole, reference)
    grad_value = torch.matmul(weights.transpose(-1, -2), pulled)
    grad_scores = torch.matmul(pulled, _value_means(part).transpose(-1, -2)).sub_(pulled_delta)
    grad_scores.mul_(weights).mul_(part.scale)
    grad_query = torch.matmul(grad_scores, means.key)
    grad_key = torch.matmul(grad_scores.transpose(-1, -2), means.query)
    averaged = averaged_keys(part.key_padding_mask, part.plan.salient, part.key)
    cells = (part.options.cell_size, means.key_counts, averaged)
    grads.query.cover(grad_query, part.block_size, means.query_counts, part.query_padding_mask)
    grads.key.cover(grad_key, *cells)
    grads.value.cover(grad_value, *cells)


def _weights(part: Part) -> tuple[Tensor, Tensor, Tensor | None]:
    """How a query block attends to the cells of key blocks that it did not choose.

    A mean stands for as many keys as it was made of, n_z.

    Returns:
        n_z e^(ŝ_xz - reference_x), [B', H', X, Z], the reference, [B', H', X], and the sum of each
        row, [B', H', X]. No sum means 1, or 0 for a block that has nothing left to attend to: the
        reference is the log-sum-exp then.
    """
    means, scores, masses, chosen, _ = part.plan
    cells = part.block_size // part.options.cell_size
    if cells > 1:
        chosen = chosen.repeat_interleave(cells, -1)[..., : scores.shape[-1]]
    if masses is not None:
        # In place, as nobody reads them again: they are as large as all that is chosen from.
        weights = masses.weights.masked_fill_(chosen, 0)
        total = weights.sum(-1)
        if bool((total > _LEAST_MASS).all()):
            return weights, masses.reference[..., 0], total
    scores = scores + means.key_counts.to(scores.dtype).log()[:, :, None, :]
    return *softmax_and_lse(scores.masked_fill_(chosen, float("-inf"))), None


def _value_means(part: Part) -> Tensor:
    """[B', H', Z, Dv]."""
    return pool_values(part.value, part.key_padding_mask, part.plan, part.options)


def _pulled(part: Part, whole: Whole, reference: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of w_i dO_i, [B', H', X, Dv], and of w_i δ_i, [B', H', X, 1], over each block."""
    weights = (reference.view(-1, 1) - whole.lse).exp_()  # [G·X, b]
    grad_out = whole.grad_out.to(part.dtype)
    pulled = torch.bmm(weights[:, None], grad_out).view(*reference.shape, part.width)
    pulled_delta = (weights * whole.delta).sum(-1).view(*reference.shape, 1)
    return pulled[..., : part.value.shape[-1]], pulled_delta
