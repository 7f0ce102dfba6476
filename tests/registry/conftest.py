import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mra_plugin.registry import api
from mra_plugin.registry.host import Registry

SAMPLE = Path(__file__).parents[2] / "examples" / "own_backend"

Install = Callable[..., str]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry that has asked nobody yet, behind the public functions.

    This distribution's own plugin stays out: what it imports is not under test here.
    """
    monkeypatch.delenv("EFFICIENT_ATTENTION_DISABLE_AUTOLOAD", raising=False)
    monkeypatch.setenv("EFFICIENT_ATTENTION_BLOCK", "mra-plugin")
    fresh = Registry()
    monkeypatch.setattr(api, "_registry", fresh)
    return fresh


@pytest.fixture(scope="session")
def mean_attention_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the sample plugin from its source."""
    folder = tmp_path_factory.mktemp("mean-attention")
    # setuptools builds beside the source, so it gets a copy.
    source, target = folder / "source", folder / "site-packages"
    shutil.copytree(SAMPLE, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True
    )
    return target


@pytest.fixture
def mean_attention(
    mean_attention_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sample plugin, installed."""
    monkeypatch.syspath_prepend(mean_attention_path)


_numbers = itertools.count()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution of one module, by writing what an installer would."""

    def install(
        distribution: str, code: str, *, entry_point: str = "plugin", version: str = "1.0"
    ) -> str:
        number = next(_numbers)
        folder = tmp_path / str(number)
        module = f"installed_plugin_{number}"
        metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (metadata / "entry_points.txt").write_text(
            f"[efficient_attention]\n{entry_point} = {module}\n"
        )
        monkeypatch.syspath_prepend(folder)
        return module

    return install
