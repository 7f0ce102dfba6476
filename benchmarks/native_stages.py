"""The compiled attention with a clock in each stage: how long it takes, and could at the least.

The clocks are in a build of its own, made where this is measured, and count for one thread.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from arithmetic import PROBES
from cases import CannotRunError
from roofline import Device, Work

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.native import library

ROOT = Path(__file__).parents[1]
# As `enum Stage` of ops/native/source/stages.h has them.
STAGES = ("packing", "pooling", "salient", "choosing", "coarse", "fine", "writing")
_RUNS = 5
# Of float32 in each of three arrays: together far more than caches hold.
_TRIAD = 32 << 20
# Short enough that some go through without an interruption.
_PRODUCTS, _PEAKS = 1000, 100


class TimedLibrary:
    """A library that counts its stages' time."""

    def __init__(self, file: Path) -> None:
        """Loads what `build_timed` built."""
        self._file = file
        self._library = ctypes.CDLL(str(file))
        self._library.mra_stage_seconds.restype = ctypes.POINTER(ctypes.c_double)
        self._library.mra_multiply_adds.restype = ctypes.c_double
        self._library.mra_multiply_adds.argtypes = [ctypes.c_int64]

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Has calls go through it, in one thread."""
        file, loaded, threads = library._FILE, library._library, torch.get_num_threads()
        library._FILE = self._file
        torch.set_num_threads(1)
        try:
            library._library = library._Library()
            yield
        finally:
            library._FILE, library._library = file, loaded
            torch.set_num_threads(threads)

    def seconds(self, run: Callable[[], object]) -> dict[str, float]:
        """Seconds of each stage of one run; what is in none of them is "rest"."""
        counted = self._library.mra_stage_seconds()
        for at in range(len(STAGES)):
            counted[at] = 0
        started = time.perf_counter()
        run()
        whole = time.perf_counter() - started
        stages = {stage: counted[at] for at, stage in enumerate(STAGES)}
        return {**stages, "rest": whole - sum(stages.values())}

    def device(self) -> Device:
        """What one thread does at best: a triad, and products of the library's own."""
        peaks = []
        for _ in range(_PEAKS):
            started = time.perf_counter()
            done = self._library.mra_multiply_adds(_PRODUCTS)
            peaks.append(2 * done / (time.perf_counter() - started))
        return Device(bandwidth(), max(peaks))


def build_timed(folder: Path) -> TimedLibrary:
    """Compiles the library with its clocks.

    Raises:
        CannotRunError: there is no compiler that can.
    """
    built = subprocess.run(
        [
            *(sys.executable, "setup.py", "build_ext"),
            *("--build-lib", str(folder), "--build-temp", str(folder / "objects")),
        ],
        cwd=ROOT,
        env={**os.environ, "MRA_NATIVE_FLAGS": "-DMRA_STAGES"},
        capture_output=True,
        text=True,
    )
    found = list(folder.rglob("libmra.so"))
    if built.returncode or not found:
        raise CannotRunError("the compiled attention can't be built here")
    return TimedLibrary(found[0])


def bandwidth() -> float:
    """Bytes per second of a = b + s c in large arrays, with PyTorch's threads."""
    a, b, c = (torch.ones(_TRIAD) for _ in range(3))
    seconds = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        torch.add(b, c, alpha=0.5, out=a)
        seconds.append(time.perf_counter() - started)
    return 3 * a.nbytes / min(seconds)


def work_of_stages(tokens: int, channels: int, heads: int, options: MRAOptions) -> dict[str, Work]:
    """What every stage of a forward has to do, with each tensor moved once, nothing computed twice.

    Args:
        tokens: N, queries and keys.
        channels: D of queries, keys and values in float32.
        heads: of all batch rows.
        options: with a budget of ``block_per_row``.
    """
    tensor = 4 * heads * tokens * channels
    blocks, cells = tokens // options.block_size, tokens // options.cell_size
    means, cell_means = 4 * heads * blocks * channels, 4 * heads * cells * channels
    products = 2 * heads * channels
    coarse = products * blocks * cells
    salient = Work(0, 0)
    if options.salient_keys:
        probed = products * min(PROBES, blocks) * tokens
        attended = 2 * products * tokens * options.salient_keys
        salient = Work(2 * tensor, probed + attended)
    exact = 2 * products * tokens * options.block_per_row * options.block_size
    return {
        "packing": Work(2 * tensor, heads * tokens * channels),
        "pooling": Work(3 * tensor + means + 2 * cell_means, 3 * heads * tokens * channels),
        "salient": salient,
        "choosing": Work(means + cell_means, coarse),
        "coarse": Work(means + cell_means, coarse),
        "fine": Work(3 * tensor, exact),
        "writing": Work(tensor, heads * tokens * channels),
        "rest": Work(0, 0),
    }
