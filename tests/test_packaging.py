"""What the built wheel holds, and what its metadata promises."""

import configparser
import email.message
import email.parser
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from helpers.native_fuzz import TARGETS
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE_DIRS = PYPROJECT["tool"]["setuptools"]["package-dir"]

LINUX = {"sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}
MACOS = {"sys_platform": "darwin", "platform_machine": "arm64", "extra": ""}
WINDOWS = {"sys_platform": "win32", "platform_machine": "AMD64", "extra": ""}


LIBRARY = "mra_plugin/ops/native/libmra.so"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


def installed_sources() -> dict[str, Path]:
    """Every file of the source tree that users should get, by its installed path."""
    return {
        f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}": path
        for package, folder in PACKAGE_DIRS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.suffix not in (".cpp", ".h", ".so")
    }


def copy_of_the_tree(to: Path) -> Path:
    """What a checkout has, without what was built there."""
    left_out = (".*", "__pycache__", "build", "dist", "*.egg-info", "*.so")
    return Path(shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*left_out)))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, made from the sdist of a copy of the tree, so that the tree stays as it is."""
    tmp = tmp_path_factory.mktemp("wheel")
    source = copy_of_the_tree(tmp / "source")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = tmp.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def dist_info(wheel: zipfile.ZipFile) -> str:
    (name,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    return name


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile, dist_info: str) -> email.message.Message:
    return email.parser.Parser().parsestr(wheel.read(f"{dist_info}/METADATA").decode())


@pytest.fixture(scope="module")
def entry_points(wheel: zipfile.ZipFile, dist_info: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(f"{dist_info}/entry_points.txt").decode())
    return parser


def test_every_folder_with_code_is_a_listed_package() -> None:
    modules = map(PurePosixPath, installed_sources())
    folders = {str(module.parent) for module in modules if module.suffix == ".py"}
    listed = {name.replace(".", "/") for name in PYPROJECT["tool"]["setuptools"]["packages"]}
    assert folders == listed


def test_wheel_holds_the_sources_and_nothing_else(wheel: zipfile.ZipFile, dist_info: str) -> None:
    sources = installed_sources()
    found = {name for name in wheel.namelist() if not name.startswith(f"{dist_info}/")}
    found -= {LIBRARY}
    assert found == set(sources)
    assert {"mra_plugin/py.typed", "mra_plugin/ops/__init__.py"} <= found
    for name in found:
        assert wheel.read(name) == sources[name].read_bytes(), name


def test_wheel_holds_the_compiled_library_for_every_python(wheel: zipfile.ZipFile) -> None:
    tag = Path(str(wheel.filename)).stem.split("-", 2)[2]
    assert tag.startswith("py3-none-")
    if COMPILER:
        assert LIBRARY in wheel.namelist()
        assert not tag.endswith("-any")


def test_wheel_carries_the_license(wheel: zipfile.ZipFile, dist_info: str) -> None:
    assert wheel.read(f"{dist_info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_entry_points_lead_to_modules_of_the_wheel(
    wheel: zipfile.ZipFile, entry_points: configparser.ConfigParser
) -> None:
    assert dict(entry_points["console_scripts"]) == {"mra": "mra_plugin.cli:app"}
    assert dict(entry_points["efficient_attention"]) == {"mra": "mra_plugin.plugin"}
    assert {"mra_plugin/cli/__init__.py", "mra_plugin/plugin.py"} <= set(wheel.namelist())


def test_metadata(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "mra-plugin"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "bench",
        "demo",
        "diffusers",
        "docs",
        "examples",
        "release",
        "report",
        "test",
        "train",
    }


@pytest.mark.parametrize(
    ("environment", "linux_only"),
    [(LINUX, {"triton", "xformers"}), (MACOS, set()), (WINDOWS, set())],
    ids=["linux", "macos", "windows"],
)
def test_requirements(
    metadata: email.message.Message, environment: dict[str, str], linux_only: set[str]
) -> None:
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    required = {r.name for r in requirements if not r.marker or r.marker.evaluate(environment)}
    assert required == {"pluggy", "rich", "torch", "transformers", "typer"} | linux_only


def test_constraints_satisfy_the_requirements(metadata: email.message.Message) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    stated = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {requirement.name: requirement.specifier for requirement in stated}
    for line in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.name == metadata["Name"]:
            continue  # an extra that takes in another
        (pin,) = pins[requirement.name]
        assert requirement.specifier.contains(pin.version), f"{requirement} against {pin}"
    assert str(pins["triton"]) == ">=3.6"


def test_unpacked_wheel_imports_without_top_level_litter(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import importlib.util, mra_plugin, mra_plugin.ops, mra_plugin.registry\n"
        "for module in mra_plugin, mra_plugin.ops, mra_plugin.registry: print(module.__file__)\n"
        "for name in 'ops', 'registry', 'tests', 'benchmarks':\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert [Path(line).parent for line in result.stdout.splitlines()] == [
        tmp_path / "mra_plugin",
        tmp_path / "mra_plugin" / "ops",
        tmp_path / "mra_plugin" / "registry",
    ]


ATTEND = (
    "import sys; sys.path.insert(0, {path!r})\n"
    "import torch\n"
    "from mra_plugin.ops import mra_attention\n"
    "from mra_plugin.ops.native import library\n"
    "x = torch.randn(1, 2, 300, 16)\n"
    "torch.testing.assert_close(mra_attention(x, x, x), mra_attention(x, x, x, impl='reference'))\n"
    "print(library.__file__)\n"
    "print(library.why_missing or library.target())\n"
)


def attend(path: Path) -> list[str]:
    """What a process says that finds the package there, and neither a compiler nor this tree."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", ATTEND.format(path=str(path))],
        capture_output=True,
        text=True,
        cwd=path,
        env={"PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler")
def test_unpacked_wheel_needs_no_compiler(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    file, target = attend(tmp_path)
    assert Path(file).is_relative_to(tmp_path)
    assert target in TARGETS


def test_it_installs_without_a_compiler_and_says_so(tmp_path: Path) -> None:
    source = copy_of_the_tree(tmp_path / "source")
    command = ("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target")
    built = subprocess.run(
        [sys.executable, "-m", *command, str(tmp_path / "installed"), str(source)],
        capture_output=True,
        text=True,
        env={**os.environ, "CC": "no-compiler", "CXX": "no-compiler"},
    )
    assert built.returncode == 0, built.stderr
    _, said = attend(tmp_path / "installed")
    assert said == "mra-plugin was installed without a C++ compiler (GCC or Clang)"
