"""What a GPU does at best, and what the stages of a call have to do."""

from __future__ import annotations

import statistics

import torch
from cases import Direction
from event_step import EventStep
from roofline import Device, Work

_RUNS = 10


def measure_device(
    device: torch.device, dtype: torch.dtype, copied_bytes: int, product_size: int
) -> Device:
    """Times a copy and a product."""
    source = torch.ones(copied_bytes, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    matrix = torch.ones(product_size, product_size, dtype=dtype, device=device)
    copy = EventStep(lambda: target.copy_(source), device)
    product = EventStep(lambda: matrix @ matrix, device)
    times = [statistics.median(step.seconds() for _ in range(_RUNS)) for step in (copy, product)]
    return Device(2 * copied_bytes / times[0], 2 * product_size**3 / times[1])


def work_of_stages(
    shape: tuple[int, int, int, int],
    block_size: int,
    block_per_row: int,
    item_bytes: int,
    direction: Direction,
) -> dict[str, Work]:
    """What every stage has to do, with each tensor moved once and nothing computed twice.

    Args:
        shape: [B, H, N, D] of query, key and value.
        block_size: tokens per block.
        block_per_row: exact blocks per block of queries.
        item_bytes: bytes of one number of query, key and value; means take four.
        direction: training is the forward and the backward.
    """
    batch, heads, tokens, channels = shape
    blocks = -(-tokens // block_size)
    tensor = batch * heads * tokens * channels * item_bytes
    means = batch * heads * blocks * channels * 4
    chosen = batch * heads * blocks * block_per_row * 4
    coarse_product = 2 * batch * heads * blocks**2 * channels
    fine_product = 2 * batch * heads * tokens * block_per_row * block_size * channels
    work = {
        "pooling": Work(3 * tensor + 3 * means, 3 * batch * heads * tokens * channels),
        "choosing": Work(2 * means + chosen, coarse_product),
        # Scores are known; values remain.
        "coarse": Work(4 * means, coarse_product),
        "fine": Work(4 * tensor, 2 * fine_product),
    }
    if direction == "training":
        # The backward has five products, and reads and writes the gradients as well.
        coarse, fine = work["coarse"], work["fine"]
        work["coarse"] = Work(coarse.bytes + 7 * means, coarse.operations + 5 * coarse_product)
        work["fine"] = Work(fine.bytes + 8 * tensor, fine.operations + 5 * fine_product)
    return work
