"""MEGA's moving average beside the steps that the original takes: ``python moving_average.py``.

The original's steps: a kernel by an exponential for each average and distance, and transforms of
2L points, or of 2(2L - 1) in both directions. Each round runs them first and ours right after.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from mra_plugin.encoders.measure import seconds_of
from mra_plugin.ops import damped_ema

Average = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def original(x: Tensor, p: Tensor, q: Tensor, gamma: Tensor, *, bidirectional: bool) -> Tensor:
    length, channels = x.shape[1:]
    logs = torch.arange(length).view(1, 1, -1) * q.log()[..., None]
    weighted = p[..., None] * logs.exp()  # [kD, N, L]
    kernel = torch.einsum("dnl,dn->dl", weighted, gamma / math.sqrt(p.shape[1]))
    rows, first, points = x.transpose(1, 2), 0, length
    if bidirectional:
        forth, back = kernel.split(channels)
        kernel = pad(forth, (length - 1, 0)) + pad(back.flip(-1), (0, length - 1))
        rows, first, points = pad(rows, (length - 1, 0)), 2 * length - 2, 2 * length - 1
    size = 2 * points
    spectrum = torch.fft.rfft(rows, size) * torch.fft.rfft(kernel, size)
    return torch.fft.irfft(spectrum, size)[..., first : first + length].transpose(1, 2)


def step(average: Average, inputs: tuple[Tensor, ...], *, trains: bool) -> Tensor:
    if not trains:
        with torch.no_grad():
            return average(*inputs)
    leaves = [one.detach().requires_grad_() for one in inputs]
    return torch.autograd.grad(average(*leaves).sum(), leaves)[0]


def saved_bytes(average: Average, inputs: tuple[Tensor, ...]) -> int:
    """What one forward pass keeps for its backward."""
    kept: dict[int, int] = {}

    def see(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(see, lambda x: x):
        average(*(one.detach().requires_grad_() for one in inputs))
    return sum(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 4096, 16384, 65536])
    parser.add_argument("--original-up-to", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--averages", type=int, default=16)
    parser.add_argument("--impl", default="auto")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    print("one thread, float32, batch 1; milliseconds, median of the rounds")
    for bidirectional in (False, True):
        for trains in (False, True):
            before = None
            for length in chosen.lengths:
                rows = chosen.channels * (1 + bidirectional)
                shape = (rows, chosen.averages)
                inputs = (
                    torch.randn(1, length, chosen.channels),
                    torch.randn(shape),
                    torch.randn(shape).add(2).sigmoid(),
                    torch.randn(shape),
                )
                own = partial(damped_ema, bidirectional=bidirectional, impl=chosen.impl)
                ways: list[Average] = [own]
                if length <= chosen.original_up_to:
                    ways.insert(0, partial(original, bidirectional=bidirectional))
                steps = [partial(step, way, inputs, trains=trains) for way in ways]
                for one in steps:
                    one()
                times = [[seconds_of(one, device) for one in steps] for _ in range(chosen.rounds)]
                took = statistics.median(row[-1] for row in times)
                words = [
                    "both ways" if bidirectional else "causal",
                    "training" if trains else "forward",
                    f"{length:6d} tokens {1e3 * took:9.1f}",
                ]
                if before is not None:
                    growth = math.log(took / before[1]) / math.log(length / before[0])
                    words.append(f"growth {growth:.2f}")
                if len(ways) == 2:
                    ratio = statistics.median(row[0] / row[1] for row in times)
                    words.append(f"{ratio:.1f} times as fast as the original's steps")
                    if trains:
                        kept, less = (saved_bytes(way, inputs) for way in ways)
                        words.append(f"keeps {less / 1e6:.1f} of {kept / 1e6:.1f} MB")
                print("  ".join(words), flush=True)
                before = (length, took)


if __name__ == "__main__":
    main()
