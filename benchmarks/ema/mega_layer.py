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

from mra_plugin import MegaConfig, MegaModel
from mra_plugin.encoders.measure import memory_changes, seconds_of

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
    out, changes = memory_changes(lambda: run(x.clone().requires_grad_()))
    return sum(changes) - out.nbytes


def build(size: int, chunk: int, *, decoder: bool) -> nn.Module:
    """The part of a layer with average and attention, ``size`` channels wide."""
    config = MegaConfig(
        vocab_size=8,
        hidden_size=size,
        intermediate_size=2 * size,
        shared_representation_size=size // 4,
        num_hidden_layers=1,
        use_chunking=True,
        chunk_size=chunk,
        is_decoder=decoder,
        bidirectional=not decoder,
    )
    layer: nn.Module = MegaModel(config).layers[0].mega_layer.eval()
    return layer


def measure(
    layer: nn.Module, length: int, rounds: int, *, trains: bool, beside: bool
) -> tuple[float, list[str]]:
    """Seconds of our step, and what there is to say of it."""
    device, x = torch.device("cpu"), torch.randn(1, length, layer.v_proj.in_features)
    ways: list[Layer] = [partial(original, layer)] if beside else []
    ways.append(lambda x: layer(x)[0])
    if beside:
        with torch.no_grad():
            torch.testing.assert_close(ways[1](x), ways[0](x), atol=1e-3, rtol=1e-3)
    steps = [partial(step, way, x, trains=trains) for way in ways]
    for one in steps:
        one()
    times = [[seconds_of(one, device) for one in steps] for _ in range(rounds)]
    words = []
    if beside:
        ratio = statistics.median(row[0] / row[1] for row in times)
        words.append(f"{ratio:.1f} times as fast as the original's steps")
    if trains:
        held = [f"{held_bytes(way, x) / 1e6:.0f}" for way in reversed(ways)]
        words.append(f"keeps {' of '.join(held)} MB")
    return statistics.median(row[-1] for row in times), words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 4096, 16384])
    parser.add_argument("--original-up-to", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=512)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("one thread, float32, batch 1; milliseconds, median of the rounds")
    for decoder in (False, True):
        layer = build(chosen.channels, chosen.chunk, decoder=decoder)
        for trains in (False, True):
            before = None
            for length in chosen.lengths:
                beside = length <= chosen.original_up_to
                took, more = measure(layer, length, chosen.rounds, trains=trains, beside=beside)
                words = [
                    "decoder" if decoder else "encoder",
                    "training" if trains else "forward",
                    f"{length:6d} tokens {1e3 * took:9.1f}",
                ]
                if before is not None:
                    growth = math.log(took / before[1]) / math.log(length / before[0])
                    words.append(f"growth {growth:.2f}")
                print("  ".join([*words, *more]), flush=True)
                before = (length, took)


if __name__ == "__main__":
    main()
