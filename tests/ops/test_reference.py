"""The reference against the definition, written out token by token in plain Python."""

import math

import pytest
import torch
from helpers.attention_calls import padding_mask, random_inputs
from torch import Tensor

from mra_plugin.ops import mra_attention, mra_attention_weights


def by_definition(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    real_keys: list[bool],
    real_queries: list[bool],
    *,
    block_size: int,
    block_per_row: int = 4,
    num_blocks: int | None = None,
    approx_mode: str = "full",
    first: int = 0,
    diagonal: int = 0,
    selection: str = "global",
    cell: int | None = None,
    salient: int = 0,
    score: str = "mean",
    exact_up_to: int = 0,
) -> tuple[list[list[float]], list[float]]:
    """Output rows and log-sum-exps of one head: query [Nq, D], key [Nk, D], value [Nk, Dv]."""
    scale = 1 / math.sqrt(query.shape[1])
    cell = cell or block_size

    def blocks(real: list[bool], size: int = block_size) -> list[list[int]]:
        starts = range(0, len(real), size)
        return [[i for i in range(s, min(s + size, len(real))) if real[i]] for s in starts]

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    def mean(rows: list[list[float]]) -> list[float]:
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    q, k, v = query.tolist(), key.tolist(), value.tolist()
    query_blocks = blocks(real_queries)
    query_means = {x: mean([q[i] for i in xs]) for x, xs in enumerate(query_blocks) if xs}

    found = set(most_important(list(query_means.values()), k, real_keys, scale, salient))
    others = [real and j not in found for j, real in enumerate(real_keys)]
    key_blocks, cells = blocks(others), blocks(others, cell)
    in_block = {
        y: [zs for zs in cells[y * block_size // cell : (y + 1) * block_size // cell] if zs]
        for y in range(len(key_blocks))
    }

    def mean_score(x: int, js: list[int]) -> float:
        return scale * dot(query_means[x], mean([k[j] for j in js]))

    def mass(x: int, ys: list[int]) -> float:
        return sum(len(zs) * math.exp(mean_score(x, zs)) for y in ys for zs in in_block[y])

    if score == "mean":
        coarse = {
            (x, y): mean_score(x, js) for x in query_means for y, js in enumerate(key_blocks) if js
        }
        best = {x: max(s for (row, _), s in coarse.items() if row == x) for x, _ in coarse}
        coarse = {(x, y): s - best[x] for (x, y), s in coarse.items()}
    else:
        everything = {x: mass(x, list(in_block)) for x in query_means}
        coarse = {
            (x, y): math.log(mass(x, [y]) / everything[x])
            for x in query_means
            for y, js in enumerate(key_blocks)
            if js
        }

    def order(pair: tuple[int, int]) -> tuple[int, float, tuple[int, int]]:
        x, y = pair
        priors = (x < first) + (y < first) + bool(diagonal and abs(x - y) <= diagonal // 2)
        return -priors, -coarse[pair], pair

    if sum(real_keys) <= exact_up_to:
        chosen = set(coarse)
    elif selection == "per_row":
        chosen = {
            pair
            for x in range(len(query_blocks))
            for pair in sorted((p for p in coarse if p[0] == x), key=order)[:block_per_row]
        }
    else:
        budget = num_blocks or block_per_row * sum(bool(xs) for xs in query_blocks)
        chosen = set(sorted(coarse, key=order)[:budget])

    outs, lses = [], []
    for i in range(len(q)):
        numerator, denominator = [0.0] * len(v[0]), 0.0
        x = i // block_size
        terms = []
        if real_queries[i]:
            seen = [j for y, js in enumerate(key_blocks) if (x, y) in chosen for j in js]
            terms = [(math.exp(scale * dot(q[i], k[j])), v[j]) for j in [*seen, *found]]
            if approx_mode == "full":
                terms += [
                    (len(zs) * math.exp(mean_score(x, zs)), mean([v[j] for j in zs]))
                    for y in in_block
                    if (x, y) not in chosen
                    for zs in in_block[y]
                ]
        for weight, row in terms:
            denominator += weight
            numerator = [n + weight * r for n, r in zip(numerator, row, strict=True)]
        outs.append([n / denominator if denominator else 0.0 for n in numerator])
        lses.append(math.log(denominator) if denominator else -math.inf)
    return outs, lses


def most_important(
    query_means: list[list[float]],
    keys: list[list[float]],
    real: list[bool],
    scale: float,
    count: int,
) -> list[int]:
    """The keys with the greatest sum of softmax shares over at most 64 of the means."""
    probes = query_means
    if len(probes) > 64:
        probes = [query_means[int((p + 0.5) * len(query_means) / 64)] for p in range(64)]
    importance = [0.0] * len(keys)
    for probe in probes:
        weights = [
            math.exp(scale * sum(a * b for a, b in zip(probe, key, strict=True))) if one else 0.0
            for key, one in zip(keys, real, strict=True)
        ]
        importance = [a + w / sum(weights) for a, w in zip(importance, weights, strict=True)]
    candidates = [j for j, one in enumerate(real) if one]
    return sorted(candidates, key=lambda j: (-importance[j], j))[:count]


@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
@pytest.mark.parametrize(
    "options",
    [
        {"block_per_row": 1},
        {"block_per_row": 3},
        {"block_per_row": 2, "selection": "per_row"},
        {"num_blocks": 7},
        {"block_per_row": 2, "first": 1},
        {"block_per_row": 2, "diagonal": 2},
        {"num_blocks": 9, "first": 1, "diagonal": 2},
        {"block_per_row": 2, "cell": 2},
        {"block_per_row": 2, "cell": 1, "score": "mass"},
        {"block_per_row": 2, "score": "mass", "selection": "per_row", "diagonal": 2},
        {"block_per_row": 1, "salient": 3},
        {"num_blocks": 5, "salient": 20, "cell": 4, "score": "mass"},
        {"block_per_row": 2, "salient": 6, "cell": 4, "score": "mass", "selection": "per_row"},
        {"block_per_row": 1, "exact_up_to": 33, "salient": 2},
    ],
)
@pytest.mark.parametrize(
    ("query_length", "key_length", "query_real", "key_real"),
    [(40, 40, 40, 40), (45, 45, 45, 45), (40, 40, 27, 27), (19, 50, 19, 33), (50, 19, 30, 19)],
)
def test_definition(
    query_length: int,
    key_length: int,
    query_real: int,
    key_real: int,
    options: dict[str, int | str],
    approx_mode: str,
) -> None:
    query, key, value = random_inputs(1, 1, query_length, key_length, 6, 5)
    key_mask = padding_mask([key_real], key_length)
    query_mask = padding_mask([query_real], query_length)
    expected, expected_lse = by_definition(
        query[0, 0],
        key[0, 0],
        value[0, 0],
        key_mask[0].tolist(),
        query_mask[0].tolist(),
        block_size=8,
        approx_mode=approx_mode,
        **options,  # type: ignore[arg-type]
    )
    names = {
        "first": "initial_prior_first_n_blocks",
        "diagonal": "initial_prior_diagonal_n_blocks",
        "cell": "coarse_key_size",
        "salient": "salient_keys",
        "score": "block_score",
    }
    out, lse = mra_attention(
        query,
        key,
        value,
        key_mask,
        query_mask,
        block_size=8,
        approx_mode=approx_mode,
        return_lse=True,
        impl="reference",
        **{names.get(name, name): option for name, option in options.items()},
    )
    torch.testing.assert_close(out[0, 0], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(lse[0, 0], torch.tensor(expected_lse, dtype=torch.float64))


def test_salient_keys_are_probed_by_64_blocks_spread_evenly() -> None:
    query, key, value = random_inputs(1, 1, 70 * 8 + 3, 40, 6, 5)
    expected, _ = by_definition(
        query[0, 0], key[0, 0], value[0, 0], [True] * 40, [True] * 563,
        block_size=8, block_per_row=1, salient=4, cell=4,
    )  # fmt: skip
    out = mra_attention(
        query, key, value,
        block_size=8, block_per_row=1, salient_keys=4, coarse_key_size=4, impl="reference",
    )  # fmt: skip
    torch.testing.assert_close(out[0, 0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
def test_weights_are_the_matrix_that_multiplies_the_values(approx_mode: str) -> None:
    query, key, value = random_inputs(2, 3, 75)
    mask = padding_mask([75, 41], 75)
    options = {"block_size": 16, "block_per_row": 2, "approx_mode": approx_mode}
    weights = mra_attention_weights(query, key, mask, **options)
    out = mra_attention(query, key, value, mask, **options, impl="eager")
    torch.testing.assert_close(weights @ value, out)
    sums = weights.sum(-1)
    assert torch.all(((sums - 1).abs() < 1e-12) | (sums == 0))
    assert torch.all(weights[1, :, :, 41:] == 0)
    unserved = mra_attention_weights(query, key, mask, mask, **options)
    torch.testing.assert_close(unserved[1, :, :41], weights[1, :, :41])
    assert torch.all(unserved[1, :, 41:] == 0)


def test_gradcheck() -> None:
    inputs = tuple(x.requires_grad_() for x in random_inputs(1, 2, 21, 26, 3, 4))
    mask = padding_mask([19], 26)
    for approx_mode in ("full", "sparse"):
        assert torch.autograd.gradcheck(
            lambda q, k, v, mode=approx_mode: mra_attention(
                q, k, v, mask, block_size=8, block_per_row=1, approx_mode=mode, impl="reference"
            ),
            inputs,
        )
