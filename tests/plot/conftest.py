import pytest


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were none, also where there is one."""
    import matplotlib

    matplotlib.use("agg")
