"""What MRA attention is when nothing is left to approximate: exact attention."""

from __future__ import annotations

import torch
from torch import Tensor

from .blocks import block_count
from .options import MRAOptions
from .real_tokens import hides_nothing

# Those that are of no account once nothing is approximated, or that say when that is.
SERVES = frozenset(
    {
        "block_size",
        "block_per_row",
        "num_blocks",
        "approx_mode",
        "initial_prior_first_n_blocks",
        "initial_prior_diagonal_n_blocks",
        "selection",
        "coarse_key_size",
        "salient_keys",
        "block_score",
        "exact_up_to",
    }
)


def covers_everything(query: Tensor, key: Tensor, options: MRAOptions) -> bool:
    """Whether every pair of tokens is exact, whatever is chosen, so that nothing is approximated.

    Options that this file does not know may change what is exact: then it is not.
    """
    if options.unknown_to(SERVES):
        return False
    if 0 < key.shape[-2] <= max(options.exact_up_to, options.salient_keys):
        return True
    blocks_x = block_count(query.shape[-2], options.block_size)
    blocks_y = block_count(key.shape[-2], options.block_size)
    if options.num_blocks is not None:
        return options.num_blocks >= blocks_x * blocks_y > 0
    return options.block_per_row >= blocks_y > 0


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
    scale: float,
) -> Tensor:
    """PyTorch's own attention, with 0 for queries that are padded and sequences without a key.

    Args:
        query: [B, H, Nq, D].
        key: [B, H, Nk, D].
        value: [B, H, Nk, Dv].
        key_padding_mask: bool [B, Nk] or None.
        query_padding_mask: bool [B, Nq] or None.
        scale: factor of the scores.

    Returns:
        [B, H, Nq, Dv].
    """
    mask = None
    served = query_padding_mask
    if key_padding_mask is not None and not hides_nothing(key_padding_mask):
        any_key = key_padding_mask.any(-1, keepdim=True)
        # A softmax over nothing is nan, whose gradient no later zero can stop.
        mask = (key_padding_mask | ~any_key)[:, None, None, :]
        served = any_key if served is None else served & any_key
        # Whatever stands at padding: 0 times nan would be nan.
        padding = ~key_padding_mask[:, None, :, None]
        key, value = key.masked_fill(padding, 0), value.masked_fill(padding, 0)
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale
    )
    return out if served is None else out.masked_fill(~served[:, None, :, None], 0)
