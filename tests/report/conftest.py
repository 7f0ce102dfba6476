from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import synthetic_results
from typer.testing import CliRunner, Result

from mra_plugin.cli import app
from mra_plugin.report.reading import read_results
from mra_plugin.report.results import Results


@pytest.fixture
def mra_report() -> Callable[..., Result]:
    """Runs the command in this process: ``mra_report("results.json")``."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["report", *map(str, arguments)])

    return run


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Results]]:
    """What is read from files with these contents: 0.json, 1.json and so on."""

    def run(*contents: Any) -> list[Results]:
        paths = [tmp_path / f"{at}.json" for at in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            synthetic_results.write(path, content)
        return read_results(paths)

    return run


@pytest.fixture(scope="session")
def cpu_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    return synthetic_results.write(folder / "cpu.json", synthetic_results.results())


@pytest.fixture(scope="session")
def gpu_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    return synthetic_results.write(folder / "gpu.json", synthetic_results.gpu_results())


@pytest.fixture(scope="session")
def cpu(cpu_file: Path) -> Results:
    (results,) = read_results([cpu_file])
    return results
