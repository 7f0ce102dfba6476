"""What is measured on a GPU, and the same at toy sizes to rehearse it without one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Plan:
    """Sizes of a run.

    Attributes:
        tokens_in_all: batch times length.
        heads: heads.
        lengths: tokens per sequence.
        channels: channels of a head.
        blocks: pairs of block size and exact blocks per row.
        fewer_at: the length at which no more than `FEWER` blocks per row are exact.
        flex: pairs of length and channels at which flex_attention is compiled, which takes long.
        seconds_per_case: for rounds, beyond the least number of them.
        stage_runs: how often every stage is timed.
        tuned_at: the length at which tile sizes are tried.
        copied_bytes: to measure the bandwidth with.
        product_size: rows and columns of the matrices to measure the peak of operations with.
    """

    tokens_in_all: int
    heads: int
    lengths: tuple[int, ...]
    channels: tuple[int, ...]
    blocks: tuple[tuple[int, int], ...]
    fewer_at: int
    flex: tuple[tuple[int, int], ...]
    seconds_per_case: float
    stage_runs: int
    tuned_at: int
    copied_bytes: int
    product_size: int

    def options(self, block: tuple[int, int], tokens: int) -> dict[str, int]:
        """Block size and budget at a length."""
        block_size, block_per_row = block
        if tokens == self.fewer_at:
            block_per_row = min(block_per_row, FEWER)
        return {"block_size": block_size, "block_per_row": block_per_row}


FEWER = 4
REAL = Plan(
    tokens_in_all=65536,
    heads=12,
    lengths=(512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
    channels=(64, 128),
    blocks=((32, 8), (64, 4)),
    fewer_at=512,
    flex=((4096, 64), (16384, 64), (65536, 64), (4096, 128)),
    seconds_per_case=0.4,
    stage_runs=10,
    tuned_at=4096,
    copied_bytes=1 << 30,
    product_size=8192,
)
REHEARSAL = Plan(
    tokens_in_all=64,
    heads=1,
    lengths=(32, 64),
    channels=(16,),
    blocks=((16, 3), (32, 1)),
    fewer_at=32,
    flex=((64, 16),),
    seconds_per_case=0.0,
    stage_runs=1,
    tuned_at=64,
    copied_bytes=1 << 20,
    product_size=64,
)


def rehearses(config: pytest.Config) -> bool:
    """Whether this run is a rehearsal."""
    return bool(config.getoption("--rehearse", default=False))


def plan_of(config: pytest.Config) -> Plan:
    """The sizes that the command line asks for."""
    return REHEARSAL if rehearses(config) else REAL
