import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import Result

from mra_plugin import environment
from mra_plugin.adapters.libraries import LIBRARIES
from mra_plugin.cli.library_uses import LIBRARY_USES
from mra_plugin.registry import api
from mra_plugin.registry.host import Registry

Mra = Callable[..., Result]


def in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_info_lists_versions_devices_and_backends_even_a_broken_one(tmp_path: Path) -> None:
    package = tmp_path / "broken_attention-1.5.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken-attention\nVersion: 1.5\n"
    )
    (package / "entry_points.txt").write_text("[efficient_attention]\nbroken = broken_attention\n")
    (tmp_path / "broken_attention.py").write_text("raise RuntimeError('out of order')\n")
    done = in_new_process(
        "from mra_plugin.cli import app; app(['info'])",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, *others = done.stdout.splitlines()
    for package in ("mra-plugin", "torch"):
        assert f"{package} {version(package)}" in first
    assert f"python {platform.python_version()}" in first
    lines = {line.split()[0]: line for line in others if line.strip()}
    assert "mra-plugin" in lines["mra"]
    assert version("transformers") in lines["transformers"]
    assert "scaled_dot_product_attention" in lines["sdpa"]
    assert "broken-attention 1.5" in lines["broken"]
    assert "failed: RuntimeError: out of order" in lines["broken"]


def test_info_fits_a_screen(mra: Mra, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(api, "_registry", Registry())  # what other tests registered is not listed
    lines = mra("info").stdout.splitlines()
    assert len(lines) <= 26
    assert max(map(len, lines)) <= 80
    assert any("exact_up_to=1024" in line for line in lines)


def test_info_says_what_computes_attention_on_each_device_or_why_not(
    mra: Mra, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mra_plugin.ops import native
    from mra_plugin.ops.native import library

    monkeypatch.setenv("COLUMNS", "200")
    command = import_module("mra_plugin.cli.info")
    monkeypatch.setattr(command, "available_devices", lambda: {"cpu": "abacus", "meta": "nothing"})
    monkeypatch.setattr(library, "target", lambda: "beads")
    monkeypatch.setattr(native, "why_missing", "")

    def rows() -> dict[str, list[str]]:
        lines = map(str.strip, mra("info").stdout.splitlines())
        return {line.split()[0]: re.split(r"\s{2,}", line)[1:] for line in lines if line}

    said = rows()
    assert "cpu (abacus)" in mra("info").stdout
    assert "it needs CUDA tensors, got cpu" in said["triton"][0]
    assert said["native"] == ["serves, with kernels for beads", "it needs CPU tensors, got meta"]
    assert said["eager"] == ['serves if asked for by impl="eager"', "serves"]
    assert said["reference"] == ['serves if asked for by impl="reference"'] * 2

    monkeypatch.setattr(native, "why_missing", "nobody compiled it")
    said = rows()
    assert said["native"] == ["nobody compiled it"] * 2
    assert said["eager"] == ["serves"] * 2


def test_every_library_that_is_patched_says_how() -> None:
    assert {library.package for library in LIBRARIES} <= {use.package for use in LIBRARY_USES}


def test_info_says_what_is_not_installed(mra: Mra, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(package: str) -> str:
        if package == "xformers":
            raise environment.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(environment, "version", installed)
    result = mra("info")
    assert result.exit_code == 0, result.output
    # The first is about the package, the second about the backend.
    line, _ = (line for line in result.stdout.splitlines() if line.startswith("xformers  "))
    assert "not installed" in line


def test_warning_of_xformers_is_caught_and_cut(tmp_path: Path) -> None:
    (tmp_path / "xformers.py").write_text(
        "import logging\n"
        "logging.getLogger('xformers').warning('WARNING[XFORMERS]: binaries for\\n"
        "  another torch\\n  Please reinstall')\n"
    )
    done = in_new_process(
        "from mra_plugin.environment import warning_of_xformers as say; print(say(), say())",
        PYTHONPATH=str(tmp_path),
    )
    assert done.stdout == "binaries for another torch \n"
    assert done.stderr == ""


def test_help_is_quick_and_shows_an_example(mra: Mra) -> None:
    result = mra("--help")
    assert result.exit_code == 0
    assert "compare" in result.stdout
    assert "info" in result.stdout
    assert "Example: mra compare --lengths" in mra("compare", "--help").stdout
    done = in_new_process(
        "import sys\n"
        "from mra_plugin.cli import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    assert done.stderr == "[]\n"
