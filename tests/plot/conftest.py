"""Lets these tests use the tiny models of others also when they run alone."""

import sys
from pathlib import Path

import pytest

for _area in ("adapters", "cli"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _area))


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were none, also where there is one."""
    import matplotlib

    matplotlib.use("agg")
