"""Presets: names for whole sets of options, there and back."""

from dataclasses import asdict

import pytest

from mra_plugin.ops import PRESETS, MRAOptions, preset_options
from mra_plugin.ops.presets import FOR_PRETRAINED, expand_preset, names_an_option, shorten_options


def test_the_papers_is_the_defaults_and_another_is_for_pretrained_models() -> None:
    assert PRESETS["paper"] == MRAOptions()
    assert FOR_PRETRAINED in PRESETS
    assert PRESETS[FOR_PRETRAINED] != MRAOptions()


@pytest.mark.parametrize("name", PRESETS)
def test_it_stands_for_every_option_and_what_is_given_goes_before(name: str) -> None:
    whole = asdict(PRESETS[name])
    assert preset_options(name) == expand_preset({"preset": name}) == whole
    given = {"preset": name, "block_per_row": 3, "impl": "eager"}
    assert expand_preset(given) == {**whole, "block_per_row": 3, "impl": "eager"}
    assert expand_preset({"preset": None, "block_per_row": 3}) == {"block_per_row": 3}


def test_unknown_ones_are_refused_by_name() -> None:
    for wrong in ("near", 3, ["close"]):
        with pytest.raises(ValueError, match=r'preset must be "paper" or "close", got'):
            expand_preset({"preset": wrong})


@pytest.mark.parametrize(
    "short",
    [
        {"preset": "paper"},
        {"preset": "close"},
        {"preset": "close", "block_per_row": PRESETS["close"].block_per_row + 1},
        {"block_per_row": 8},
        {"block_per_row": 8, "approx_mode": "sparse", "impl": "eager"},
    ],
    ids=str,
)
def test_options_are_shown_as_few(short: dict[str, object]) -> None:
    whole = expand_preset({"preset": "paper", **short})
    assert shorten_options(whole) == short
    assert expand_preset({"preset": "paper", **shorten_options(whole)}) == whole


def test_what_is_not_whole_is_shown_as_it_is() -> None:
    for params in ({}, {"block_per_row": 14}, {"num_landmarks": 64}):
        assert shorten_options(params) == params


def test_how_it_is_computed_is_no_option() -> None:
    assert not names_an_option({"impl": "eager", "preset": None})
    assert names_an_option({"preset": "paper"})
    assert names_an_option({"salient_keys": 0})
