from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch.distributed as dist
from helpers.worlds import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], World]]:
    """``world(2)`` is a world of two processes, the same for all tests."""
    made: list[World] = []

    @cache
    def make(size: int) -> World:
        made.append(World(size, tmp_path_factory.mktemp(f"world-of-{size}")))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def lone_world(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()
