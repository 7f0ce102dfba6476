"""Other processes that keep the machine busy while something is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Ends with whoever started it, of whatever that dies.
_SPIN = """
import os, torch
torch.set_num_threads(1)
x = torch.rand(512, 512)
parent = os.getppid()
print("busy", flush=True)
while os.getppid() == parent:
    x @ x
"""


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keeps so many processes busy meanwhile, each multiplying matrices in one thread."""
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", _SPIN], stdout=subprocess.PIPE)
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != b"busy\n":
                raise RuntimeError("a process that should keep the machine busy did not start")
        yield
