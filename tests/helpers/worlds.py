"""Processes that stay and make up a process group, to run the same function in each of them."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any

# Started once with what takes long to import; the processes are its forks.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch._dynamo", "mra_plugin.plugin", "mra_plugin.training.run"])


class World:
    """P processes with gloo between them."""

    def __init__(self, size: int, folder: Path) -> None:
        self.ranks = [
            ProcessPoolExecutor(
                1, CONTEXT, initializer=_join_group, initargs=(rank, size, str(folder / "store"))
            )
            for rank in range(size)
        ]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function`` returns in each process, or the first error.

        Tensors would be passed on in shared memory, which ends with the process: use arrays.
        """
        calls = [rank.submit(function, *arguments) for rank in self.ranks]
        done, _ = wait(calls, timeout=90, return_when=FIRST_EXCEPTION)
        for call in done:
            call.result()  # raises what went wrong, while others may wait for that process
        return [call.result(timeout=0) for call in calls]

    def close(self) -> None:
        for rank in self.ranks:
            rank.shutdown(wait=False)


def _join_group(rank: int, size: int, store: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=30),
    )
