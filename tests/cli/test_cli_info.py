import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import Result

from mra_plugin import environment

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
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert lines["python"].split()[1] == platform.python_version()
    assert lines["torch"].split()[1] == version("torch")
    assert lines["transformers"].split()[1] == version("transformers")
    assert platform.machine() in lines["cpu"]
    assert "mra-plugin 0.1.0" in lines["mra"]
    assert " ok " in lines["mra"]
    assert "scaled_dot_product_attention" in lines["sdpa"]
    assert "broken-attention 1.5" in lines["broken"]
    assert "failed" in lines["broken"]
    assert "RuntimeError: out of order" in lines["broken"]


def test_info_says_whether_the_compiled_attention_serves_or_why_not(
    mra: Mra, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mra_plugin.ops.native import library

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(library, "why_missing", "")
    monkeypatch.setattr(library, "target", lambda: "abacus")
    assert "native implementation of mra: kernels for abacus\n" in mra("info").stdout
    monkeypatch.setattr(library, "why_missing", "nobody compiled it")
    assert "of mra: nobody compiled it; eager serves\n" in mra("info").stdout


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
