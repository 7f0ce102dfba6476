"""``output_attentions=True`` gives the dense matrices that the attention stands for."""

import pytest
import torch
from helpers.tiny_models import MAKE, inputs_of, make, padded, token_ids
from huggingface_hub.errors import StrictDataclassClassValidationError

import mra_plugin

PARAMS = {"block_size": 8, "block_per_row": 2}


@pytest.mark.parametrize("family", sorted(MAKE))
def test_the_matrices_are_those_of_exact_attention_with_a_full_budget(family: str) -> None:
    model = make(family, attn_implementation="eager")
    mask = padded()
    inputs = inputs_of(family, mask)
    exact = model(**inputs, output_attentions=True).attentions
    mra_plugin.patch(model, block_size=16, block_per_row=8)
    full = model(**inputs, output_attentions=True).attentions
    assert len(full) == len(exact) == 2
    for ours, theirs in zip(full, exact, strict=True):
        if family != "vit":
            ours, theirs = (one.transpose(1, 2)[mask.bool()] for one in (ours, theirs))
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


def test_the_matrix_times_the_values_is_the_output() -> None:
    model = mra_plugin.patch(make("bert"), **PARAMS)
    layer = model.encoder.layer[0].attention.self
    states = torch.randn(2, 70, 32)
    mask = padded().bool()
    out, weights = layer(states, mask, output_attentions=True)
    value = layer.value(states).view(2, 70, 2, 16).transpose(1, 2)
    product = (weights @ value).transpose(1, 2).reshape(2, 70, 32)
    torch.testing.assert_close(product, out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(2, 70))


def test_the_flag_in_the_config(tmp_path: object) -> None:
    model = mra_plugin.patch(make("bert"), **PARAMS)
    ids = token_ids()
    assert model(ids).attentions is None
    wanted = model(ids, output_attentions=True).attentions

    model.config.output_attentions = True
    assert model(ids, output_attentions=False).attentions is None
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    made = (
        type(model)
        .from_pretrained(tmp_path, attn_implementation="mra", output_attentions=True)
        .eval()
    )
    for one in (model, loaded, made):
        assert all(map(torch.equal, one(ids).attentions, wanted))


def test_other_implementations_are_still_refused_the_flag() -> None:
    config = make("bert").config
    with pytest.raises(ValueError, match="output_attentions"):
        config.output_attentions = True
    with pytest.raises(StrictDataclassClassValidationError, match="output_attentions"):
        type(config)(attn_implementation="sdpa", output_attentions=True)
