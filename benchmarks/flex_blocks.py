"""PyTorch's compiled flex_attention over the very blocks that MRA attention chooses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.plan import plan_blocks


def flex_attention_on_mra_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    block_size: int,
    block_per_row: int,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Chooses the blocks; the first call compiles.

    It computes what MRA attention's sparse mode does. Choosing the blocks is not part of it: they
    are those of the inputs given here.

    Args:
        query: [B, H, N, D].
        key: [B, H, N, D].
        value: [B, H, N, Dv].
        block_size: tokens per block.
        block_per_row: exact blocks per block of queries, on average.
    """
    options = MRAOptions(block_size=block_size, block_per_row=block_per_row)
    with torch.no_grad():
        chosen = plan_blocks(query, key, None, None, options, query.shape[-1] ** -0.5).chosen
    lengths = query.shape[2], key.shape[2]
    mask = BlockMask.from_kv_blocks(
        chosen.sum(-1, dtype=torch.int32),
        chosen.int().argsort(dim=-1, descending=True, stable=True).int(),
        BLOCK_SIZE=block_size,
        seq_lengths=lengths,
    )
    # One compilation for each case: past a limit, PyTorch would go on without compiling.
    torch.compiler.reset()
    compiled = torch.compile(flex_attention, dynamic=False)
    # On a GPU a tile of the kernel must not be larger than a block.
    tiles = {"BLOCK_M": block_size, "BLOCK_N": block_size} if query.is_cuda else None

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out: Tensor = compiled(query, key, value, block_mask=mask, kernel_options=tiles)
        return out

    return attend
