"""`mra_plugin.tune` on small models, whose closeness is real and whose time is not."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import layer_families, tiny_mega
from helpers.letter_models import SIZES
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

import mra_plugin
from mra_plugin.errors import UserError
from mra_plugin.tuning.documents import documents_of
from mra_plugin.tuning.measuring import neighbour_overlap

Letters = Callable[[int], str]
LENGTHS = [128, 256]


@pytest.fixture
def tokenizer(tiny_bert: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture
def model(tiny_bert: Path) -> PreTrainedModel:
    return AutoModel.from_pretrained(tiny_bert)


@torch.no_grad()
def read(model: PreTrainedModel, documents: list[list[int]]) -> list[Tensor]:
    return [model(torch.tensor([one])).last_hidden_state[0].double() for one in documents]


@pytest.mark.parametrize("metric", ["sentence", "token"])
def test_what_is_reported_is_what_the_patched_model_gives(
    metric: Any, model: PreTrainedModel, tiny_bert: Path, tokenizer: Any, letters: Letters
) -> None:
    text, told = letters(2000), []
    found = mra_plugin.tune(
        model, tokenizer, text, 0.93, lengths=LENGTHS[::-1], metric=metric,
        progress=lambda share, what: told.append((share, what)),
    )  # fmt: skip
    assert found.options is not None
    assert told == sorted(told, key=lambda one: one[0])
    (row,) = (one for one in found.frontier if one.options == found.options)
    assert row.closeness >= 0.93
    assert row.speed_up > 1.05
    assert found.options["exact_up_to"] == 127  # at 64 nothing gains
    assert found.repeated.sentences() == [
        "the model's 48 position embeddings are repeated up to 256"
    ]

    halves = documents_of(tokenizer, [text], LENGTHS, metric)
    exact = mra_plugin.convert.stretch(AutoModel.from_pretrained(tiny_bert), None, 256)
    mra = mra_plugin.patch(copy.deepcopy(exact), **found.options)
    for one in row.lengths:
        cut = [halves.cut(document, one.tokens) for document in halves.held_out]
        assert all(len(ids) == one.tokens for ids in cut)
        closeness = []
        for expected, got in zip(read(exact, cut), read(mra, cut), strict=True):
            if metric == "sentence":
                expected, got = expected.mean(0, keepdim=True), got.mean(0, keepdim=True)
            closeness.append(torch.cosine_similarity(expected, got, dim=-1).mean())
        assert one.closeness == pytest.approx(float(torch.stack(closeness).mean()), abs=1e-9)
        assert one.closeness < 1


def test_ranking(model: PreTrainedModel, tokenizer: Any, letters: Letters) -> None:
    found = mra_plugin.tune(model, tokenizer, letters(4400), 0.6, lengths=[256], metric="ranking")
    assert found.documents == 8
    assert found.options is not None
    assert all(
        one.closeness * 24 == pytest.approx(round(one.closeness * 24)) for one in found.frontier
    )
    assert min(one.closeness for one in found.frontier) < 1


def test_overlap_of_neighbours() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3, 3.0, 3.1, 3.2, 3.3])
    vectors = torch.stack((angles.cos(), angles.sin()), -1).double()
    assert neighbour_overlap(vectors, 7 * vectors) == 1
    # Two change places, each leaving its three neighbours: of 24, 12 stay.
    swapped = vectors[[4, 1, 2, 3, 0, 5, 6, 7]]
    assert neighbour_overlap(vectors, swapped) == pytest.approx(12 / 24)
    assert neighbour_overlap(vectors, vectors * float("nan")) < 1


@pytest.mark.parametrize("before", ["exact and training", "patched", "with a head"])
def test_the_model_stays_as_it_was(
    before: str, model: PreTrainedModel, tokenizer: Any, letters: Letters
) -> None:
    if before == "with a head":
        model = BertForSequenceClassification(model.config)
    if before == "patched":
        mra_plugin.patch(model, block_per_row=3)
    model.train(before != "patched")
    weights = {name: (one, one.clone()) for name, one in model.state_dict().items()}
    config, limit = model.config.to_dict(), tokenizer.model_max_length
    modes = [module.training for module in model.modules()]
    found = mra_plugin.tune(model, tokenizer, [letters(1100)] * 2, 0.9, lengths=[256])
    assert found.options is not None
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == ("mra" if before == "patched" else "sdpa")
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert after.keys() == weights.keys()
    for name, (one, values) in weights.items():
        assert after[name].data_ptr() == one.data_ptr()
        assert torch.equal(after[name], values)
    assert tokenizer.model_max_length == limit


@pytest.mark.parametrize("family", ["Mra", "Nystromformer", "own mra", "own mega"])
def test_models_that_approximate_by_themselves_or_know_no_limit(
    family: str, tokenizer: Any, letters: Letters
) -> None:
    if family == "own mra":
        sizes = {**SIZES, "hidden_size": 64, "max_position_embeddings": 256}
        model: Any = mra_plugin.MraModel(mra_plugin.MraConfig(**sizes)).eval()
    elif family == "own mega":
        model = tiny_mega.make(max_positions=48, initializer_range=0.6)
    else:
        model = layer_families.make(family)
    found = mra_plugin.tune(model, tokenizer, letters(1100), 0.7, lengths=[256])
    assert found.options is not None
    assert found.frontier[-1].closeness < 1
    mra_plugin.patch(model, **found.options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": 0}, "target must be a number above 0 and up to 1, got 0"),
        ({"target": 1.01}, "up to 1, got 1.01"),
        ({"target": float("nan")}, "up to 1, got nan"),
        ({"target": "0.9"}, "up to 1, got '0.9'"),
        ({"metric": "words"}, "metric must be sentence or token or ranking, got 'words'"),
        ({"lengths": []}, r"lengths must be a list of positive whole numbers, got \[\]"),
        ({"lengths": [64, 0]}, r"list of positive whole numbers, got \[64, 0\]"),
        ({"lengths": 256}, "list of positive whole numbers, got 256"),
        ({"lengths": [2, 64]}, "lengths must be more than the 2 special tokens"),
        (
            {"lengths": [64, 1024]},
            "the metric sentence needs 2 documents of 1024 tokens, half of them held out, which "
            "are 2044 tokens of text, and there are 2000",
        ),
        ({"metric": "ranking", "lengths": [256]}, "needs 16 documents of 256 tokens"),
        ({"texts": []}, "and there are 0"),
    ],
)
def test_bad_arguments(
    changed: dict[str, Any], message: str, model: PreTrainedModel, tokenizer: Any, letters: Letters
) -> None:
    given = {"model": model, "tokenizer": tokenizer, "texts": letters(2000), "lengths": [256]}
    with pytest.raises(UserError, match=message):
        mra_plugin.tune(**{**given, **changed})


def test_models_that_cant_be_tuned(model: PreTrainedModel, tokenizer: Any) -> None:
    sizes = {"vocab_size": 30, "n_embd": 16, "n_layer": 1, "n_head": 2}
    for wrong, message in (
        (GPT2Model(GPT2Config(**sizes)), "can't use 'mra' in this model: GPT2Model can't take"),
        (ViTModel(ViTConfig(hidden_size=12)), "ViTModel does not read text but pixel_values"),
        (layer_families.make("Mra", position_embedding_type="relative_key"), "can't tune MraModel"),
        (tiny_mega.make(attention_activation="laplace"), "'mra' is a softmax"),
        (tiny_mega.make(relative_positional_bias="simple"), "'mra' does not serve a bias"),
    ):
        with pytest.raises(UserError, match=message):
            mra_plugin.tune(wrong, tokenizer, "a")
    with pytest.raises(TypeError, match="model must be a transformers model, got Linear"):
        mra_plugin.tune(torch.nn.Linear(2, 2), tokenizer, "a")
    other_words = BertModel(type(model.config)(**{**SIZES, "vocab_size": 6}))
    with pytest.raises(UserError, match="the model can't read 128 tokens"):
        mra_plugin.tune(other_words, tokenizer, "x " * 300, lengths=[128])


def test_halves_share_no_token_and_come_from_all_over(tokenizer: Any, letters: Letters) -> None:
    text = letters(5000)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    halves = documents_of(tokenizer, [text[:3000], text[3000:]], [32, 102], "token")
    starts = [
        next(at for at in range(0, 5000, 100) if whole[at : at + 100] == list(document))
        for document in (*halves.search, *halves.held_out)
    ]
    assert len(set(starts)) == 6
    assert min(starts) == 0
    assert max(starts) > 4000
    assert halves.cut(halves.search[0], 32) == [2, *whole[:30], 3]
