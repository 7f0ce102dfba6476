"""Every supported family: MRA is exact with a full budget, coarse with a small one."""

import pytest
import torch
from helpers.tiny_models import MAKE, TEXT, hidden, inputs_of, make, padded, token_ids

import mra_plugin

FULL = {"block_size": 16, "block_per_row": 8}
SMALL = {"block_size": 8, "block_per_row": 1}


@pytest.mark.parametrize("family", sorted(MAKE))
@pytest.mark.parametrize("real", [70, 45])
def test_full_budget_is_exact_and_small_budget_is_not(family: str, real: int) -> None:
    model = make(family)
    mask = padded(real=real)
    inputs = inputs_of(family, mask)
    exact = hidden(model, **inputs)
    full = hidden(mra_plugin.patch(model, **FULL), **inputs)
    small = hidden(mra_plugin.patch(model, **SMALL), **inputs)
    if family != "vit":
        exact, full, small = (one[mask.bool()] for one in (exact, full, small))

    torch.testing.assert_close(full, exact, atol=2e-5, rtol=2e-5)
    assert (small - exact).abs().max() > 1e-2
    assert small.isfinite().all()


@pytest.mark.parametrize("family", TEXT)
def test_padding_that_follows_changes_no_real_token(family: str) -> None:
    model = mra_plugin.patch(make(family), **SMALL)
    ids = token_ids()[:, :45]
    # The token under the mask is a real one's id, so that only the mask can hide it.
    longer = torch.cat([ids, torch.full((2, 51), 7)], dim=1)
    mask = torch.zeros(2, 96, dtype=torch.long)
    mask[:, :45] = 1

    short = hidden(model, input_ids=ids, attention_mask=mask[:, :45])
    torch.testing.assert_close(
        hidden(model, input_ids=longer, attention_mask=mask)[:, :45], short, atol=2e-5, rtol=2e-5
    )
    torch.testing.assert_close(hidden(model, input_ids=ids), short, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", sorted(MAKE))
def test_loading_with_the_flag(family: str, tmp_path: object) -> None:
    model = make(family)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="mra").eval()
    inputs = inputs_of(family, padded())

    assert loaded.config._attn_implementation == "mra"
    torch.testing.assert_close(
        hidden(loaded, **inputs), hidden(mra_plugin.patch(model), **inputs), atol=0, rtol=0
    )


@pytest.mark.parametrize("side", ["left", "holes"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "eurobert"])
def test_padding_may_lie_anywhere(family: str, side: str) -> None:
    model = make(family)
    mask = padded().flip(1) if side == "left" else (torch.arange(140).view(2, 70) % 3 > 0).long()
    inputs = inputs_of(family, mask)
    exact = hidden(model, **inputs)[mask.bool()]
    full = hidden(mra_plugin.patch(model, **FULL), **inputs)[mask.bool()]
    torch.testing.assert_close(full, exact, atol=2e-5, rtol=2e-5)


def test_a_row_of_padding_alone_is_finite() -> None:
    for family in TEXT:
        model = mra_plugin.patch(make(family), **SMALL)
        out = hidden(model, **inputs_of(family, padded(real=0)))
        assert out.isfinite().all(), family
