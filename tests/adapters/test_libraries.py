"""A library that keeps the choice of attention where it likes."""

import sys
from types import ModuleType
from typing import Any

import pytest
from helpers.tiny_models import make
from torch import nn

import mra_plugin
from mra_plugin.adapters import libraries

ROW = libraries.Library(package="letters", model="a letters.Model", adapter="letters")


class LetterModel(nn.Module):
    choice: tuple[str, dict[str, Any]] | None = None


class LetterAdapter(ModuleType):
    """Keeps the choice in an attribute."""

    def accepts(self, model: nn.Module) -> bool:
        return any(isinstance(one, LetterModel) for one in model.modules())

    def patch(self, model: nn.Module, attention: str, params: dict[str, Any]) -> None:
        for one in model.modules():
            if isinstance(one, LetterModel):
                one.choice = attention, params

    def unpatch(self, model: nn.Module) -> None:
        for one in model.modules():
            if isinstance(one, LetterModel):
                one.choice = None


@pytest.fixture
def _letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "LIBRARIES", (*libraries.LIBRARIES, ROW))
    monkeypatch.setitem(sys.modules, "letters", ModuleType("letters"))
    name = "mra_plugin.adapters.letters"
    monkeypatch.setitem(sys.modules, name, LetterAdapter(name))


@pytest.mark.usefixtures("_letters")
def test_each_librarys_models_are_patched_by_its_adapter() -> None:
    letters, roberta = LetterModel(), make("roberta")
    both = nn.ModuleList([letters, roberta])
    assert mra_plugin.patch(both, block_per_row=2) is both
    assert letters.choice == ("mra", {"block_per_row": 2})
    assert roberta.config.mra == {"block_per_row": 2}
    assert mra_plugin.unpatch(both) is both
    assert letters.choice is None
    assert roberta.config._attn_implementation == "sdpa"
    assert mra_plugin.patch(letters, "sdpa").choice == ("sdpa", {})


@pytest.mark.usefixtures("_letters")
def test_a_model_of_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    (own,) = (one for one in libraries.LIBRARIES if one.package == "transformers")
    monkeypatch.setattr(libraries, "LIBRARIES", (own, ROW))
    words = "model must be, or hold, a transformers PreTrainedModel or a letters.Model; Linear does"
    with pytest.raises(TypeError, match=words):
        mra_plugin.patch(nn.Linear(2, 2))


def test_a_library_that_nobody_imported_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "LIBRARIES", (*libraries.LIBRARIES, ROW))
    with pytest.raises(TypeError, match="Linear does not"):
        mra_plugin.unpatch(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="int does not"):
        mra_plugin.patch(3)
