"""Relative positions: exact in chosen blocks, averaged in the others."""

import math

import pytest
import torch
from helpers.tiny_mra import SIZES, hidden, make, padded, token_ids
from torch import Tensor

from mra_plugin.models.mra.relative import relative_weights
from mra_plugin.ops import MRAOptions, mra_attention

MAX, LENGTH, SIZE, DIM = 48, 37, 8, 6
SCALE = 1 / math.sqrt(DIM)


def random_inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, LENGTH, DIM)] * 3 + [(2 * MAX - 1, DIM)]
    query, key, value, table = (
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes
    )
    return query, key, value, table


def mask() -> Tensor:
    real = torch.ones(2, LENGTH, dtype=torch.bool)
    real[1, 21:] = False
    real[1, 3] = False
    return real


def bert_scores(query: Tensor, key: Tensor, table: Tensor, with_key: bool) -> Tensor:
    """The scores of BERT, one pair of tokens after the other."""
    scores = torch.empty(*query.shape[:3], key.shape[2], dtype=query.dtype)
    for i in range(query.shape[2]):
        for j in range(key.shape[2]):
            distance = table[i - j + MAX - 1]
            pair = (query[:, :, i] * key[:, :, j]).sum(-1) + query[:, :, i] @ distance
            if with_key:
                pair = pair + key[:, :, j] @ distance
            scores[:, :, i, j] = pair * SCALE
    return scores


def brute_force(scores: Tensor, value: Tensor, real: Tensor, budget: int, mode: str) -> Tensor:
    """MRA over given scores, block pair after block pair, for one head of one sequence.

    Blocks are cut from the real tokens alone.
    """
    alone = [i for i in range(LENGTH) if real[i]]
    tokens = [alone[start : start + SIZE] for start in range(0, len(alone), SIZE)]
    block_of = {i: x for x, block in enumerate(tokens) for i in block}
    coarse = {
        (x, y): torch.stack([scores[i, j] for i in tokens[x] for j in tokens[y]]).mean().item()
        for x in range(len(tokens))
        for y in range(len(tokens))
        if tokens[x] and tokens[y]
    }
    best = {x: max(v for (row, _), v in coarse.items() if row == x) for x, _ in coarse}
    ranked = sorted(coarse, key=lambda pair: coarse[pair] - best[pair[0]], reverse=True)
    chosen = set(ranked[:budget])
    out = torch.zeros(LENGTH, value.shape[-1], dtype=value.dtype)
    for i in range(LENGTH):
        if not real[i]:
            continue
        total, norm = torch.zeros(value.shape[-1], dtype=value.dtype), 0.0
        for y in range(len(tokens)):
            for j in tokens[y]:
                if (block_of[i], y) in chosen:
                    weight = math.exp(scores[i, j].item())
                elif mode == "full":
                    weight = math.exp(coarse[block_of[i], y])
                else:
                    continue
                total, norm = total + weight * value[j], norm + weight
        out[i] = total / norm if norm else total
    return out


@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize("mode", ["full", "sparse"])
@pytest.mark.parametrize("budget", [1, 6, 14])
def test_against_brute_force(with_key: bool, mode: str, budget: int) -> None:
    query, key, value, table = random_inputs()
    real = mask()
    options = MRAOptions(block_size=SIZE, num_blocks=budget, approx_mode=mode)
    weights = relative_weights(query, key, table, real, options, SCALE, with_key=with_key)
    scores = bert_scores(query, key, table, with_key)
    for row in range(2):
        for head in range(3):
            expected = brute_force(scores[row, head], value[row, head], real[row], budget, mode)
            out = (weights @ value)[row, head]
            torch.testing.assert_close(out[real[row]], expected[real[row]])


@pytest.mark.parametrize("with_key", [False, True])
def test_full_budget_is_berts_attention(with_key: bool) -> None:
    query, key, value, table = random_inputs()
    real = mask()
    scores = bert_scores(query, key, table, with_key)
    scores = scores.masked_fill(~real[:, None, None, :], float("-inf"))
    exact = scores.softmax(-1) @ value
    weights = relative_weights(
        query,
        key,
        table,
        real,
        MRAOptions(block_size=SIZE, block_per_row=5),
        SCALE,
        with_key=with_key,
    )
    torch.testing.assert_close(weights @ value, exact)


def test_without_distances_it_is_plain_mra() -> None:
    query, key, value, table = random_inputs()
    options = {"block_size": SIZE, "num_blocks": 7, "initial_prior_diagonal_n_blocks": 1}
    weights = relative_weights(
        query,
        key,
        torch.zeros_like(table),
        mask(),
        MRAOptions(**options),
        SCALE,
        with_key=True,
    )
    torch.testing.assert_close(weights @ value, mra_attention(query, key, value, mask(), **options))


@pytest.mark.parametrize("with_key", [False, True])
def test_gradients(with_key: bool) -> None:
    query, key, _, table = random_inputs()
    inputs = [x.requires_grad_() for x in (query, key, table)]
    options = MRAOptions(block_size=SIZE, num_blocks=5)

    def attend(*inputs: Tensor) -> Tensor:
        return relative_weights(*inputs, mask(), options, SCALE, with_key=with_key)

    assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)


@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_the_table_lies_where_bert_has_it_and_matters(kind: str) -> None:
    model, ids = make(position_embedding_type=kind), token_ids()
    table = model.state_dict()["encoder.layer.1.attention.self.distance_embedding.weight"]
    assert table.shape == (2 * 128 - 1, SIZES["hidden_size"] // 2)
    before = hidden(model, ids, padded())
    table.mul_(2)
    assert not hidden(model, ids, padded()).equal(before)


def test_the_query_sees_distances_from_the_query() -> None:
    # Row MAX - 1 + d belongs to the key d tokens before the query.
    query, key, _, table = random_inputs()
    table = torch.zeros_like(table)
    table[MAX - 1 + 2] = 50
    options = MRAOptions(block_size=SIZE, block_per_row=5)
    weights = relative_weights(query.abs(), key, table, None, options, SCALE, with_key=False)
    assert weights.argmax(-1)[..., 2:].eq(torch.arange(LENGTH - 2)).all()
