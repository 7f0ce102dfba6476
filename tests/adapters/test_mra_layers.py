"""transformers' MRA models compute what they were trained to compute."""

import pytest
import torch
from helpers import mra_kernels
from helpers.layer_families import POSITIONS, attention_layer, in_heads, make
from helpers.tiny_models import hidden, token_ids
from torch import nn
from transformers.models.mra import modeling_mra

import mra_plugin
from mra_plugin.ops import mra_attention


@pytest.fixture
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_mra, "mra_cuda_kernel", mra_kernels)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize(
    "own",
    [
        {},
        {"block_per_row": 2},
        {"block_per_row": 99},
        {"approx_mode": "sparse", "block_per_row": 2},
        {"initial_prior_first_n_blocks": 1},
        {"initial_prior_diagonal_n_blocks": 1},
        {"num_attention_heads": 4},  # heads of fewer than 32 channels
    ],
)
@pytest.mark.parametrize(
    "real", [160, *(pytest.param(real, marks=mra_kernels.reads_masks) for real in (150, 131))]
)
def test_equal_to_the_original_where_it_works(own: dict[str, object], real: int) -> None:
    model = make("Mra", **own)
    # Alone in its batch, as the original mixes up the masks of several sequences, and without a
    # block of padding alone, which it lets into its choice of blocks.
    mask = (torch.arange(160) < real).long()[None]
    inputs = {"input_ids": token_ids(1, 160), "attention_mask": mask}
    original = hidden(model, **inputs)
    patched = hidden(mra_plugin.patch(model), **inputs)
    at = mask.bool()
    torch.testing.assert_close(patched[at], original[at], atol=5e-4, rtol=5e-4)
    assert (hidden(mra_plugin.patch(model, attention="nystrom"), **inputs) - patched)[
        at
    ].abs().max() > 2e-2


def test_without_its_kernel_the_original_gives_zeros_and_the_patched_does_not() -> None:
    model = make("Mra")
    ids, other = token_ids(2, 160), token_ids(2, 160)
    other[:, 0] = 3
    moved = (hidden(model, input_ids=ids) - hidden(model, input_ids=other)).abs().amax((0, 2))
    assert torch.all(moved[1:] == 0)
    mra_plugin.patch(model)
    moved = (hidden(model, input_ids=ids) - hidden(model, input_ids=other)).abs().amax((0, 2))
    assert torch.all(moved > 1e-5)


def attended(model: nn.Module, tokens: int, **options: object) -> None:
    """Checks the first layer against the operator with ``options``."""
    layer = attention_layer(model)
    states = torch.randn(2, tokens, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = mra_attention(*in_heads(layer, states), **options)
        torch.testing.assert_close(layer(states)[0], out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("own", "given", "options"),
    [
        # 160 positions are 5 blocks of 32, and the budget is that of 160 tokens at any length.
        ({}, {}, {"num_blocks": 5}),
        ({"block_per_row": 2}, {}, {"num_blocks": 10}),
        ({"block_per_row": 2}, {"block_per_row": 1}, {"num_blocks": 5}),
        ({}, {"num_blocks": 3}, {"num_blocks": 3}),
        ({}, {"block_size": 16}, {"block_size": 16, "num_blocks": 10}),
        ({}, {"selection": "per_row"}, {"selection": "per_row", "block_per_row": 1}),
        ({"approx_mode": "sparse"}, {}, {"approx_mode": "sparse", "num_blocks": 5}),
        (
            {"approx_mode": "sparse"},
            {"approx_mode": "full"},
            {"approx_mode": "full", "num_blocks": 5},
        ),
        (
            {"initial_prior_first_n_blocks": 1, "initial_prior_diagonal_n_blocks": 3},
            {},
            {
                "initial_prior_first_n_blocks": 1,
                "initial_prior_diagonal_n_blocks": 3,
                "num_blocks": 5,
            },
        ),
    ],
)
def test_parameters_of_the_model_and_of_patch(
    own: dict[str, object], given: dict[str, object], options: dict[str, object]
) -> None:
    model = mra_plugin.patch(make("Mra", **own), **given)
    assert model.config.mra == given
    for tokens in (POSITIONS, 129):
        attended(model, tokens, **options)


def test_fewer_positions_than_a_block() -> None:
    attended(mra_plugin.patch(make("Mra", max_position_embeddings=20)), 20, num_blocks=1)


@pytest.mark.parametrize("params", [{}, {"block_per_row": 2}, {"block_size": 8, "num_blocks": 7}])
def test_equal_to_the_family_of_this_package(params: dict[str, int]) -> None:
    theirs = make("Mra")
    ours = mra_plugin.MraModel(mra_plugin.MraConfig(**theirs.config.to_diff_dict()))
    ours.load_state_dict(theirs.state_dict())
    inputs = {"input_ids": token_ids(2, 100), "attention_mask": torch.ones(2, 100)}
    inputs["attention_mask"][0, 60:] = 0
    ours = mra_plugin.patch(ours.eval(), **params)
    torch.testing.assert_close(
        hidden(ours, **inputs), hidden(mra_plugin.patch(theirs, **params), **inputs)
    )
