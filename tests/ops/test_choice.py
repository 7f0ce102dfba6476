"""Which blocks are chosen: budget, ties, priors, padding."""

import pytest
import torch

from mra_plugin.ops.blocks import count_tokens
from mra_plugin.ops.options import MRAOptions
from mra_plugin.ops.plan import choose_blocks, visible_pairs


def pairs(query_counts: list[int], key_counts: list[int]) -> torch.Tensor:
    """The visible pairs of blocks with so many real tokens."""
    return visible_pairs(torch.tensor([query_counts]), torch.tensor([[key_counts]]))


def test_takes_exactly_the_budget_and_ties_go_to_the_lowest_index() -> None:
    scores = torch.zeros(1, 2, 4, 5)
    chosen = choose_blocks(scores, pairs([8] * 4, [8] * 5), MRAOptions(num_blocks=7))
    assert torch.equal(chosen.flatten(-2), (torch.arange(20) < 7).expand(1, 2, 20))


def test_ties_at_the_threshold_fill_what_the_budget_leaves() -> None:
    # Behind the row maximum: 0 -1 -2 | 0 -2 -2 | -1 -1 0.
    scores = torch.tensor([[[[5.0, 4, 3], [9, 7, 7], [1, 1, 2]]]])
    chosen = choose_blocks(scores, pairs([8] * 3, [8] * 3), MRAOptions(num_blocks=5))
    expected = torch.tensor([[[[1, 1, 0], [1, 0, 0], [1, 0, 1]]]]).bool()
    assert torch.equal(chosen, expected)


def test_per_row_takes_the_best_of_each_row() -> None:
    scores = torch.tensor([[[[1.0, 3, 2, 2], [0, 0, 0, 0], [-5, -6, -7, -4]]]])
    options = MRAOptions(block_per_row=2, selection="per_row")
    chosen = choose_blocks(scores, pairs([8] * 3, [8] * 4), options)
    expected = torch.tensor([[[[0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]]]).bool()
    assert torch.equal(chosen, expected)


def test_padding_is_never_chosen_nor_the_row_maximum() -> None:
    scores = torch.tensor([[[[0.0, -1, 99], [-5, 0, 99], [50, 50, 50]]]])
    chosen = choose_blocks(scores, pairs([8, 3, 0], [8, 1, 0]), MRAOptions(num_blocks=3))
    expected = torch.tensor([[[[1, 1, 0], [0, 1, 0], [0, 0, 0]]]]).bool()
    assert torch.equal(chosen, expected)


@pytest.mark.parametrize("selection", ["global", "per_row"])
def test_fewer_real_pairs_than_budget(selection: str) -> None:
    options = MRAOptions(block_per_row=5, selection=selection)
    chosen = choose_blocks(torch.randn(1, 1, 4, 6), pairs([8, 8, 0, 0], [8] * 2 + [0] * 4), options)
    expected = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    expected[:, :, :2, :2] = True
    assert torch.equal(chosen, expected)


def test_default_budget_counts_the_query_blocks_that_hold_a_real_token() -> None:
    scores = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[8] * 6, [8, 8, 1, 0, 0, 0], [0] * 6])
    keys = torch.full((3, 1, 6), 8)
    chosen = choose_blocks(scores, visible_pairs(real, keys), MRAOptions(block_per_row=2))
    assert chosen.sum((-1, -2)).tolist() == [[12, 12], [6, 6], [0, 0]]


def test_priors_outweigh_any_score_and_add_up() -> None:
    scores = torch.full((1, 1, 4, 4), -3000.0)
    scores[..., 2, 3] = 3000.0
    everything = pairs([8] * 4, [8] * 4)
    first = choose_blocks(
        scores, everything, MRAOptions(num_blocks=7, initial_prior_first_n_blocks=1)
    )
    grid = torch.arange(4)
    assert torch.equal(first[0, 0], (grid[:, None] == 0) | (grid[None, :] == 0))
    diagonal = choose_blocks(
        scores, everything, MRAOptions(num_blocks=10, initial_prior_diagonal_n_blocks=3)
    )
    assert torch.equal(diagonal[0, 0], (grid[:, None] - grid[None, :]).abs() <= 1)
    both = choose_blocks(
        scores,
        everything,
        MRAOptions(num_blocks=1, initial_prior_first_n_blocks=1, initial_prior_diagonal_n_blocks=1),
    )
    assert both[0, 0].nonzero().tolist() == [[0, 0]]


def test_priors_keep_the_order_of_close_scores() -> None:
    scores = torch.zeros(1, 1, 1, 4)
    scores[..., 3] = 1e-6
    chosen = choose_blocks(
        scores,
        pairs([8], [8] * 4),
        MRAOptions(num_blocks=1, initial_prior_first_n_blocks=1),
    )
    # The first column falls under both priors.
    assert chosen.flatten().tolist() == [True, False, False, False]
    chosen = choose_blocks(
        scores[..., 1:].expand(1, 1, 2, 3).contiguous(),
        pairs([8] * 2, [8] * 3),
        MRAOptions(num_blocks=3, initial_prior_diagonal_n_blocks=5),
    )
    assert chosen[0, 0].tolist() == [[True, False, True], [False, False, True]]


def test_token_counts() -> None:
    device = torch.device("cpu")
    assert count_tokens(None, 2, 20, 8, device).tolist() == [[8, 8, 4]] * 2
    mask = torch.arange(20)[None] % 3 == 0
    assert count_tokens(mask, 1, 20, 8, device).tolist() == [[3, 3, 1]]
