"""One head's attention matrix, exact and as MRA has it, and how far they are apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from mra_plugin.encoders.capture import AttentionInputs
from mra_plugin.errors import UserError
from mra_plugin.ops import MRAOptions, mra_attention_weights
from mra_plugin.ops.plan import plan_blocks
from mra_plugin.registry.exact import exact_weights

# Some dense matrices of so many tokens squared fit into half a gigabyte.
MAX_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class HeadComparison:
    """What MRA makes of one head; N real tokens, as MRA leaves padding out.

    Attributes:
        exact: the exact attention matrix, [N, N] float32 (float64 for float64), on the CPU.
        mra: the matrix that MRA stands for, likewise.
        chosen: the block pairs that are exact, bool [X, Y].
        block_size: tokens per block.
        salient: the keys that every query sees exactly, int64, in rising order.
        relative_error: distance of the head's output from the exact one, relative to the latter
            (Frobenius norms).
        cosine: cosine between a token's output and its exact one, mean over tokens.
        density: share of the pairs of real tokens that are computed exactly.
        kept: share of the exact matrix's weight that lies in these pairs.
    """

    exact: Tensor
    mra: Tensor
    chosen: Tensor
    block_size: int
    salient: Tensor
    relative_error: float
    cosine: float
    density: float
    kept: float


def compare_head(inputs: AttentionInputs, head: int, options: MRAOptions) -> HeadComparison:
    """Compares MRA with exact attention in one head of one layer.

    Args:
        inputs: what the layer was handed, of one sequence.
        head: number of the head, from 0.
        options: of MRA.

    Raises:
        UserError: there is no such head; the layer is local by design, which MRA leaves as it
            is; there is more than one sequence; or it has more than `MAX_TOKENS` tokens.
    """
    batch, heads, tokens, _ = inputs.query.shape
    if not 0 <= head < heads:
        raise UserError(f"head must be from 0 to {heads - 1}, got {head}")
    if batch != 1:
        raise UserError(
            f"layer {inputs.layer} attends in {batch} parts, of sequences or of chunks that a "
            "model cuts them into; inputs must hold one sequence, of one chunk at most"
        )
    if tokens > MAX_TOKENS:
        raise UserError(
            f"inputs must have at most {MAX_TOKENS} tokens, as whole matrices are compared, "
            f"got {tokens}"
        )
    if inputs.reach is not None:
        raise UserError(
            f"layer {inputs.layer} sees {inputs.reach} tokens to each side by design, and MRA "
            "leaves it so; choose a layer that sees everything"
        )
    real = slice(None) if inputs.key_padding_mask is None else inputs.key_padding_mask[0]
    query, key, value = (
        x[:, head : head + 1, real].cpu().to(torch.promote_types(x.dtype, torch.float32))
        for x in (inputs.query, inputs.key, inputs.value)
    )
    scale = query.shape[-1] ** -0.5 if inputs.scale is None else inputs.scale
    exact = exact_weights(query, key, scale=scale)[0, 0]
    mra = mra_attention_weights(query, key, scale=scale, **asdict(options))[0, 0]
    plan = plan_blocks(query, key, None, None, options, scale)
    chosen, salient = plan.chosen[0, 0], plan.salient[0, 0]
    salient = salient[salient >= 0]  # there may be fewer than were asked for
    block = torch.arange(query.shape[2]) // options.block_size
    computed = chosen[block[:, None], block]
    computed[:, salient] = True
    out, target = (weights @ value[0, 0] for weights in (mra, exact))
    return HeadComparison(
        exact=exact,
        mra=mra,
        chosen=chosen,
        block_size=options.block_size,
        salient=salient,
        relative_error=((out - target).norm() / target.norm()).item(),
        cosine=cosine_similarity(out, target, dim=-1).mean().item(),
        density=computed.float().mean().item(),
        kept=(exact[computed].sum() / exact.sum()).item(),
    )
