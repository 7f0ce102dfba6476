"""The kernels that choose and list blocks, run by Triton's interpreter, against plain PyTorch."""

from typing import Any

import pytest
import torch
from helpers.attention_calls import padding_mask
from torch import Tensor

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.blocks import count_tokens, pool
from mra_plugin.ops.plan import plan_blocks
from mra_plugin.ops.problem import Problem
from mra_plugin.ops.triton import choosing, lists
from mra_plugin.ops.triton.choosing import choose
from mra_plugin.ops.triton.lists import list_blocks
from mra_plugin.ops.triton.pooling import pool_blocks

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("_interpreter")]


def problem_of(*masks: Tensor | None, lengths: tuple[int, int], **options: Any) -> Problem:
    """Blocks of equal small integers: means and scores are exact, and many scores are equal."""
    generator = torch.Generator().manual_seed(5)
    size = 16
    query, key, value = (
        torch.randint(-2, 3, (2, 2, -(-length // size), 4), generator=generator)
        .repeat_interleave(size, 2)[:, :, :length]
        .float()
        for length in (*lengths, lengths[1])
    )
    key_mask, query_mask = (*masks, None, None)[:2]
    settings = MRAOptions(block_size=size, **options)
    return Problem(query, key, value, key_mask, query_mask, settings, 0.5)


def expected_choice(problem: Problem) -> Tensor:
    masks = problem.key_padding_mask, problem.query_padding_mask
    plan = plan_blocks(problem.query, problem.key, *masks, problem.options, problem.scale)
    return plan.chosen


@pytest.mark.parametrize("widths", [(), choosing._WIDTHS], ids=["long lines", "short lines"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("options", [
    {"block_per_row": 3},
    {"block_per_row": 3, "selection": "per_row"},
    {"block_per_row": 99},
    {"num_blocks": 1},
    {"num_blocks": 20},
    {"num_blocks": 10**9},
    {"block_per_row": 2, "initial_prior_first_n_blocks": 1},
    {"block_per_row": 2, "initial_prior_diagonal_n_blocks": 3},
    {"block_per_row": 4, "selection": "per_row", "initial_prior_diagonal_n_blocks": 2},
    {"block_per_row": 3, "coarse_key_size": 4},
    {"block_per_row": 3, "coarse_key_size": 4, "selection": "per_row", "block_score": "mass"},
    {"block_per_row": 2, "coarse_key_size": 4, "salient_keys": 20},
    {"block_per_row": 1, "exact_up_to": 75, "salient_keys": 3},
])  # fmt: skip
def test_the_choice_is_that_of_the_shared_code(
    options: dict[str, Any], padded: bool, widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_WIDTHS", widths)
    monkeypatch.setattr(choosing, "_WIDTH", 16)
    masks = (padding_mask([140, 70], 150), padding_mask([0, 57], 90)) if padded else ()
    problem = problem_of(*masks, lengths=(90, 150), **options)
    chosen = choose(problem, pool_blocks(problem))
    expected = expected_choice(problem)
    assert torch.equal(chosen, expected)
    # Or else ties would not be tried.
    assert expected.any()


@pytest.mark.parametrize("widths", [(), choosing._WIDTHS], ids=["long lines", "short lines"])
def test_of_equal_scores_the_first_are_chosen(
    widths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_WIDTHS", widths)
    x = torch.zeros(1, 1, 96, 4)
    problem = Problem(x, x, x, None, None, MRAOptions(block_size=16, num_blocks=8), 1.0)
    chosen = choose(problem, pool_blocks(problem))
    assert torch.equal(chosen.flatten(), torch.arange(36) < 8)


@pytest.mark.parametrize("cell_size", [None, 16, 2])
def test_means_and_counts(cell_size: int | None) -> None:
    mask = padding_mask([90, 33, 0], 90)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(3, 2, length, channels, generator=generator)
        for length, channels in ((50, 24), (90, 24), (90, 40))
    )
    options = MRAOptions(block_size=32, coarse_key_size=cell_size)
    problem = Problem(query, key, value, mask, None, options, 1.0)
    means, size = pool_blocks(problem), options.cell_size
    query_counts = count_tokens(None, 3, 50, 32, query.device)
    key_counts = count_tokens(mask, 3, 90, size, key.device)
    assert torch.equal(means.query_counts, query_counts.int())
    assert torch.equal(means.key_counts, key_counts.int())
    torch.testing.assert_close(means.query, pool(query, None, query_counts, 32))
    torch.testing.assert_close(means.key, pool(key, mask, key_counts, size))
    torch.testing.assert_close(means.value, pool(value, mask, key_counts, size))


def random_choice(shape: tuple[int, int, int], transposed: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(shape, generator=generator) < 0.3
    return chosen.transpose(1, 2).contiguous().transpose(1, 2) if transposed else chosen


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("small", [16, 64])
@pytest.mark.parametrize("shape", [(2, 40, 70), (3, 5, 40), (1, 33, 7), (1, 64, 64), (1, 4, 0)])
def test_lists(
    shape: tuple[int, int, int], small: int, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_SMALL", small)
    groups, lines, length = shape
    chosen = random_choice(shape, transposed)
    found = list_blocks(chosen, lines * length, length, chunk=length)
    assert found.items is None
    for group in range(groups):
        for line in range(lines):
            first, last = found.starts[group, line : line + 2].tolist()
            entries = found.entries[group, first:last].tolist()
            assert entries == chosen[group, line].nonzero().flatten().tolist()


@pytest.mark.parametrize("lines_per_step", [8, 1024])
@pytest.mark.parametrize("chunk", [1, 3, 20])
def test_long_lists_are_cut(
    chunk: int, lines_per_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_LINES_CUT", lines_per_step)
    chosen = random_choice((2, 30, 50), transposed=False)
    chosen[0, 3] = False
    chosen[1, 7] = True
    lengths = chosen.sum(-1)
    capacity = int(lengths.sum(-1).max())
    found = list_blocks(chosen, capacity, 50, chunk)
    assert found.items is not None
    assert found.first_items is not None
    assert found.slots is not None
    for group in range(2):
        chunks = [max(1, -(-length // chunk)) for length in lengths[group].tolist()]
        items = [line for line, count in enumerate(chunks) for _ in range(count)]
        assert found.items[group].tolist() == items + [-1] * (found.items_per_head - len(items))
        taken = 0
        for line, count in enumerate(chunks):
            assert found.first_items[group, line] == sum(chunks[:line])
            assert found.slots[group, line] == (taken if count > 1 else -1)
            taken += count if count > 1 else 0
        assert taken <= found.slots_per_head
