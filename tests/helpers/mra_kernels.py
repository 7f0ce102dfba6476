"""What the CUDA kernels of transformers' MRA compute, in plain PyTorch.

With these in place its models run their own code on any machine, to compare with.
Shapes: n chosen pairs of blocks x·Y + y, b = 32 tokens per block; sparse matrices [B, n, b, b] hold
keys in rows and queries in columns.
"""

import pytest
import torch
from torch import Tensor
from transformers.models.mra import modeling_mra

# Before 5.19 transformers' own models take their mask for one of another kind, and let padding in.
reads_masks = pytest.mark.skipif(
    hasattr(modeling_mra, "create_bidirectional_mask"), reason="the original misreads its mask"
)


def index_max(index_vals: Tensor, indices: Tensor, rows: int, columns: int) -> tuple[Tensor, ...]:
    """Greatest score of each query [B, rows·b], and the same beside each chosen pair [B, b, n]."""
    batch, size, _ = index_vals.shape
    row = (indices // columns).long()[:, None, :].expand_as(index_vals)
    greatest = torch.full((batch, size, rows), -1e4).scatter_reduce(2, row, index_vals, "amax")
    return greatest.transpose(1, 2).reshape(batch, -1), greatest.gather(2, row)


def mm_to_sparse(query: Tensor, key: Tensor, indices: Tensor) -> Tensor:
    """Products of the chosen pairs, from [B, X, D, b] and [B, Y, D, b]."""
    at = torch.arange(len(indices))[:, None]
    chosen_query = query[at, (indices // key.shape[1]).long()]
    chosen_key = key[at, (indices % key.shape[1]).long()]
    return chosen_key.transpose(-1, -2) @ chosen_query


def sparse_dense_mm(sparse: Tensor, indices: Tensor, value: Tensor, rows: int) -> Tensor:
    """Sums over the chosen pairs of each row, [B, X, D, b] from values [B, Y, D, b]."""
    columns = value.shape[1]
    at = torch.arange(len(indices))[:, None]
    products = value[at, (indices % columns).long()] @ sparse
    out = torch.zeros(len(indices), rows, *products.shape[2:])
    for batch, row in enumerate((indices // columns).long()):
        out[batch].index_add_(0, row, products[batch])
    return out
