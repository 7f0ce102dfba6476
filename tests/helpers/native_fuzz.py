"""Calls that compiled kernels might trip over, drawn at random and held against the reference.

As a script: with another library, for example one with sanitizers built in.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mra_plugin.ops import mra_attention
from mra_plugin.ops.native import library

from .agreement import LIMITS, compare
from .attention_calls import random_inputs

TARGETS = ("avx512_bf16", "avx512", "avx2", "portable")

# Of few tokens that happen to cancel, narrow types leave less.
FUZZ_LIMITS = {**LIMITS, torch.bfloat16: 4e-2, torch.float16: 1e-2}


def targets_here() -> list[str]:
    """The sets of kernels that can run on this processor."""
    found = []
    for name in TARGETS:
        try:
            with library.using(name):
                found.append(name)
        except RuntimeError:
            continue
    return found


def fuzz(calls: int, seed: int = 0) -> None:
    """Runs both directions of so many calls, and compares."""
    chance = random.Random(seed)
    targets = targets_here()
    threads = torch.get_num_threads()
    try:
        for _ in range(calls):
            torch.set_num_threads(chance.choice((1, 2, 5)))
            with library.using(chance.choice(targets)):
                _one(chance)
    finally:
        torch.set_num_threads(threads)


def _one(chance: random.Random) -> None:
    batch, heads = chance.choice((1, 1, 2, 3)), chance.choice((1, 2, 5))
    queries = chance.choice((1, 2, 7, 8, 9, 33, 64, 100, 257))
    keys = chance.choice((queries, queries, 1, 8, 31, 129, 300))
    channels = (chance.choice((1, 3, 8, 16, 17, 33, 64)), chance.choice((1, 5, 8, 16, 40)))
    dtype = chance.choice(list(LIMITS))
    seed = chance.randrange(1000)
    inputs = random_inputs(batch, heads, queries, keys, *channels, dtype=dtype, seed=seed)
    query, key, value = (_laid_out(chance, x) for x in inputs)
    inputs = (query, key, value)
    masks = (_mask(chance, batch, keys), _mask(chance, batch, queries))
    options = _options(chance)
    compare("native", inputs, *masks, limits=FUZZ_LIMITS, **options)
    _with_odd_numbers(chance, inputs, masks, options)


def _laid_out(chance: random.Random, x: Tensor) -> Tensor:
    """The same numbers, elsewhere in memory."""
    kind = chance.choice(("dense", "tokens first", "apart", "shifted", "one head for all"))
    if kind == "tokens first":
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if kind == "apart":
        return torch.stack((x, x + 1), -1)[..., 0]
    if kind == "shifted":
        room = torch.full((x.numel() + 3,), float("nan"), dtype=x.dtype)
        room[3:] = x.flatten()
        return room[3:].view(x.shape)
    return x[:, :1].expand_as(x) if kind == "one head for all" else x


def _mask(chance: random.Random, batch: int, length: int) -> Tensor | None:
    kind = chance.choice(("none", "none", "behind", "in front", "holes", "nothing real"))
    if kind == "none":
        return None
    if kind == "nothing real":
        return torch.zeros(1, length, dtype=torch.bool).expand(batch, -1)
    if kind == "holes":
        generator = torch.Generator().manual_seed(chance.randrange(1000))
        return torch.rand(batch, length, generator=generator) < chance.random()
    real = [[chance.randint(0, length)] for _ in range(batch)]
    mask = torch.arange(length) < torch.tensor(real)
    return mask if kind == "behind" else mask.flip(1)


def _options(chance: random.Random) -> dict[str, Any]:
    block = chance.choice((8, 8, 16, 32, 64, 128))
    huge = 2**31 - 1
    options = {
        "block_size": block,
        "block_per_row": chance.choice((1, 2, 5, huge)),
        "approx_mode": chance.choice(("full", "sparse")),
        "selection": chance.choice(("global", "per_row")),
        "block_score": chance.choice(("mean", "mass")),
        "coarse_key_size": chance.choice((None, 1, 2, block // 2, block)),
        "salient_keys": chance.choice((0, 0, 1, 9, 500)),
        "exact_up_to": chance.choice((0, 0, 30, huge)),
        "initial_prior_first_n_blocks": chance.choice((0, 0, 1, huge)),
        "initial_prior_diagonal_n_blocks": chance.choice((0, 0, 3, huge)),
        "scale": chance.choice((None, 0.3)),
    }
    if options["selection"] == "global":
        options["num_blocks"] = chance.choice((None, 1, 7, huge))
    return options


def _with_odd_numbers(
    chance: random.Random,
    inputs: tuple[Tensor, ...],
    masks: tuple[Tensor | None, ...],
    options: dict[str, Any],
) -> None:
    """Numbers of which nothing is asked but that memory stays whole."""
    odd = chance.choice((float("nan"), float("inf"), -float("inf"), 1e30, 0.0))
    leaves = [x.clone() for x in inputs]
    for leaf in leaves:
        if chance.random() < 0.5:
            leaf[..., chance.randrange(leaf.shape[-2]), chance.randrange(leaf.shape[-1])] = odd
        leaf.requires_grad_()
    results = mra_attention(*leaves, *masks, **options, return_lse=True, impl="native")
    sum(one.sum() for one in results).backward()


if __name__ == "__main__":
    file, calls = sys.argv[1:]
    library._FILE = Path(file)
    library._library = library._Library()
    fuzz(int(calls))
    print(f"{calls} calls, kernels for {', '.join(targets_here())}")
