"""What the processes of a world run, and the same computed by one process alone."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mra_plugin.parallel import sequence_parallel
from mra_plugin.registry import build_attention, register_attention

Arrays = list[np.ndarray]


@register_attention("first-token", summary="what a plugin might offer: needs the whole sequence")
class FirstToken:
    def __init__(self, *, factor: float) -> None:
        self.factor = factor

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        return (query * key[:, :, :1]).sum(-1, keepdim=True) * self.factor + value[:, :, :1]


def inputs(
    dtype: torch.dtype, masked: bool, queries: int = 96
) -> tuple[list[Tensor], list[Tensor | None], Tensor]:
    """Query, key and value, their masks, and the gradient of the output; whole sequences."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(queries, 8), (96, 8), (96, 12), (queries, 12)]
    *qkv, grad = (torch.randn(2, 4, *size, generator=generator, dtype=dtype) for size in sizes)
    if not masked:
        return qkv, [None, None], grad
    real = torch.arange(96)[None] < torch.tensor([[96], [41]])
    return qkv, [real, real[:, :queries]], grad


def alone(
    attention: dict[str, Any],
    dtype: torch.dtype,
    masked: bool,
    queries: int = 96,
    parts: int = 1,
) -> Arrays:
    """Output and gradients of one process that attends alone, heads in so many parts."""
    qkv, masks, grad = inputs(dtype, masked, queries)
    for x in qkv:
        x.requires_grad_()
    attend = build_attention(attention)
    shares = zip(*(x.chunk(parts, 1) for x in qkv), strict=True)
    out = torch.cat([attend(*share, *masks, scale=0.5) for share in shares], 1)
    out.backward(grad)
    return [x.detach().numpy() for x in (out, *(x.grad for x in qkv))]


def together(
    attention: dict[str, Any], dtype: torch.dtype, masked: bool, queries: int = 96
) -> Arrays:
    """This process's shards of the same, computed with all others."""
    qkv, masks, grad = inputs(dtype, masked, queries)
    qkv = [own(x, 2).requires_grad_() for x in qkv]
    name, params = attention["name"], {k: v for k, v in attention.items() if k != "name"}
    out = build_attention("ulysses", inner=name, **params)(
        *qkv, *(None if m is None else own(m, 1) for m in masks), scale=0.5
    )
    out.backward(own(grad, 2))
    return [x.detach().numpy() for x in (out, *(x.grad for x in qkv))]


def own(x: Tensor, axis: int) -> Tensor:
    """This process's shard."""
    return x.chunk(dist.get_world_size(), axis)[dist.get_rank()].clone()


def compiled() -> tuple[np.ndarray, np.ndarray]:
    """The sharded output with and without torch.compile."""
    qkv, _, _ = inputs(torch.float64, masked=False)
    shards = [own(x, 2) for x in qkv]
    attention = build_attention("ulysses", inner="sdpa")
    faster = torch.compile(attention.__call__, backend="aot_eager", fullgraph=True)
    return attention(*shards).numpy(), faster(*shards).numpy()


def in_pairs() -> list[np.ndarray]:
    """Two pairs of processes, each with a sequence of its own; output shards of this pair's."""
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "sequence"))
    data, place = mesh.get_coordinate()
    qkv, _, _ = inputs(torch.float64, masked=False)
    row = [x[data : data + 1].chunk(2, 2)[place] for x in qkv]
    with sequence_parallel(mesh["sequence"]):
        out = build_attention("ulysses", inner="mra", block_size=8, block_per_row=2)(*row)
    whole = [x[data : data + 1] for x in qkv]
    expected = build_attention("mra", block_size=8, block_per_row=2)(*whole)
    return [out.numpy(), expected.chunk(2, 2)[place].numpy()]


def error_of(mistake: str) -> str:
    """The message that this process gets for a mistake."""
    attention = build_attention("ulysses", inner="sdpa")
    rank, size = dist.get_rank(), dist.get_world_size()
    heads = 4 if mistake != "heads" else 3 * size // 2
    x = torch.zeros(1, heads, 8, 4)
    mask = None
    try:
        if mistake == "lengths" and rank:
            x = x[:, :, :7]
        if mistake == "masks" and rank:
            mask = torch.ones(1, 8, dtype=torch.bool)
        if mistake == "mesh":
            mesh = dist.init_device_mesh("cpu", (1, size), mesh_dim_names=("data", "sequence"))
            with sequence_parallel(mesh):
                pass
        elif mistake == "outsider":
            with sequence_parallel(dist.GroupMember.NON_GROUP_MEMBER):
                pass
        else:
            attention(x, x, x, mask)
    except ValueError as error:
        return str(error)
    return "no error"
