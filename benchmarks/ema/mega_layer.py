"""A MEGA layer beside the steps that the original takes: ``python mega_layer.py``.

The original's steps: the moving average as in `moving_average.original`, the bias of a chunk from
turned vectors, attention by a softmax of dense scores, and everything kept for the backward.
Weights, projections and gates are the same. Each round runs them first and ours right after.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial

import moving_average
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.profiler import ProfilerActivity, profile

from mra_plugin import MegaConfig, MegaModel
from mra_plugin.encoders.measure import seconds_of

Layer = Callable[[Tensor], Tensor]


def averaged(layer: nn.Module, x: Tensor) -> Tensor:
    ema = layer.ema_gate
    damping = torch.sigmoid(ema.damping_factor)[..., 0]
    decay = 1 - damping * torch.sigmoid(ema.decay_factor)[..., 0]
    weight = damping * ema.ema_expansion_matrix[..., 0]
    gamma = ema.kernel_projection_matrix
    found = moving_average.original(x, weight, decay, gamma, bidirectional=ema.bidirectional)
    return silu(found + x * ema.residual_weight)


def original(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer by the original's steps, [B, L, D] to the same."""
    chunk = layer.config.chunk_size
    chunk = chunk if layer.config.use_chunking and x.shape[1] > chunk else x.shape[1]
    normed = layer.norm(x)
    value = silu(layer.v_proj(normed))
    projected = layer.mx_proj(averaged(layer, normed))
    update, shared, gate, candidate = projected.split(layer.sizes, -1)
    shared, gate = silu(shared), silu(gate)
    query, key = (shared * layer.qk_weight[i] + layer.qk_bias[i] for i in range(2))
    query, key, value = (one.unflatten(1, (-1, chunk)) for one in (query, key, value))
    scores = query * query.shape[-1] ** -0.5 @ key.mT + layer.rel_pos_bias().between(chunk, chunk)
    if layer.is_causal:
        hidden = torch.full((chunk, chunk), -math.inf).triu(1)
        scores = scores + hidden
    out = (scores.softmax(-1) @ value).flatten(1, 2)
    new = silu(candidate + layer.h_proj(out * gate))
    return torch.lerp(x, new, torch.sigmoid(update))


def step(run: Layer, x: Tensor, *, trains: bool) -> None:
    if not trains:
        with torch.no_grad():
            run(x)
        return
    run(x.clone().requires_grad_()).sum().backward()


def held_bytes(run: Layer, x: Tensor) -> int:
    """What one forward pass leaves in memory for its backward, its input included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        out = run(x.clone().requires_grad_())
    events = profiler.profiler.kineto_results.events()
    held: int = sum(event.nbytes() for event in events if event.name() == "[memory]")
    return held - out.nbytes


def growth(lengths: list[int], times: list[float]) -> float:
    """Exponent of the last doubling of length, or as near to one as was measured."""
    if len(times) < 2:
        return math.nan
    last, before = lengths[len(times) - 1], lengths[len(times) - 2]
    return math.log(times[-1] / times[-2]) / math.log(last / before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 4096, 16384])
    parser.add_argument("--original-up-to", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=512)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    device, size = torch.device("cpu"), chosen.channels
    print("one thread, float32, batch 1; milliseconds, median of the rounds, and megabytes kept")
    for decoder in (False, True):
        config = MegaConfig(
            vocab_size=8,
            hidden_size=size,
            intermediate_size=2 * size,
            shared_representation_size=size // 4,
            num_hidden_layers=1,
            use_chunking=True,
            chunk_size=chosen.chunk,
            is_decoder=decoder,
            bidirectional=not decoder,
        )
        layer = MegaModel(config).layers[0].mega_layer.eval()

        def ours(x: Tensor, layer: nn.Module = layer) -> Tensor:
            return layer(x)[0]

        def theirs(x: Tensor, layer: nn.Module = layer) -> Tensor:
            return original(layer, x)

        for trains in (False, True):
            done: list[float] = []
            for length in chosen.lengths:
                x = torch.randn(1, length, size)
                runs = [ours] if length > chosen.original_up_to else [theirs, ours]
                if len(runs) > 1:
                    with torch.no_grad():
                        torch.testing.assert_close(ours(x), theirs(x), atol=1e-3, rtol=1e-3)
                for run in runs:
                    step(run, x, trains=trains)
                times: list[list[float]] = [[] for _ in runs]
                for _ in range(chosen.rounds):
                    for run, found in zip(runs, times, strict=True):
                        again = partial(step, run, x, trains=trains)
                        found.append(1e3 * seconds_of(again, device))
                medians = [statistics.median(found) for found in times]
                done.append(medians[-1])
                kind = (
                    f"{'decoder' if decoder else 'encoder'}, {'training' if trains else 'forward'}"
                )
                line = f"{kind:18} {length:6}: {medians[-1]:8.1f} ms"
                line += f", growth {growth(chosen.lengths, done):.2f}"
                if len(runs) > 1:
                    line += f"; original {medians[0]:8.1f} ms, {medians[0] / medians[1]:.1f} times"
                if trains:
                    kept = [held_bytes(run, x) / 1e6 for run in runs]
                    line += f"; {kept[-1]:.0f} MB kept" + (
                        f" of {kept[0]:.0f}" if len(runs) > 1 else ""
                    )
                print(line, flush=True)


if __name__ == "__main__":
    main()
