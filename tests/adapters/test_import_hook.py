"""Acting on an import that somebody else makes."""

import importlib.util
import sys
from pathlib import Path

import pytest

from mra_plugin.adapters.import_hook import when_imported


def test_acts_once_for_each_action_and_only_on_the_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "watched_module.py").write_text("value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    calls: list[str] = []
    finders = list(sys.meta_path)
    when_imported("watched_module", lambda: calls.append("first"))
    when_imported("watched_module", lambda: calls.append("second"))

    assert importlib.util.find_spec("watched_module") is not None
    assert calls == []
    module = importlib.import_module("watched_module")
    assert module.value == 1
    assert sorted(calls) == ["first", "second"]
    assert sys.meta_path == finders
    when_imported("watched_module", lambda: calls.append("late"))
    assert calls[-1] == "late"
    del sys.modules["watched_module"]
