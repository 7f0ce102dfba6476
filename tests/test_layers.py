"""Who imports whom: nothing runs upwards, and implementations don't know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up; docs/architecture.md says what each room is for. A room imports from those
# that stand here behind its name, and from itself.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "ops": set(),
    "registry": set(),
    "testing": {"registry"},
    "environment": {"errors"},
    "backends": {"ops", "registry"},
    "adapters": {"ops", "registry", "backends"},
    "models": {"ops", "registry", "adapters"},
    "parallel": {"ops", "registry", "adapters"},
    "plugin": {"backends", "parallel", "registry"},
    "encoders": {"errors", "ops", "registry", "adapters", "models"},
    "convert": {"errors", "files", "ops", "adapters", "models", "encoders"},
    "training": {"errors", "files", "registry", "adapters", "parallel", "encoders"},
    "picture": {"errors", "ops", "registry", "encoders"},
    "tuning": {"errors", "ops", "adapters", "encoders"},
    "report": {"errors", "files", "ops", "registry", "encoders"},
    "cli": {
        *("errors", "files", "ops", "registry", "adapters", "environment", "encoders"),
        *("convert", "training", "picture", "tuning", "report"),
    },
    "__init__": {"adapters", "models", "picture", "tuning"},
}
# Libraries that only these rooms may import.
OWNERS = {
    "triton": {"ops"},
    "xformers": {"adapters"},
    "diffusers": {"adapters"},
    "pluggy": {"registry"},
    "transformers": {
        *("adapters", "models", "parallel", "encoders", "convert", "training", "tuning"),
        "cli",  # for a type
    },
    "typer": {"cli"},
    "rich": {"cli"},
    "sentence_transformers": {"convert"},
    "matplotlib": {"picture", "report", "cli"},
}

# Rooms of ops that compute an attention. They share what else is in ops, and don't know each other
# or the face.
ATTENTIONS = {
    *("reference", "exact", "eager", "triton", "native", "nystrom", "local_attention", "ema"),
}
FACE = {"__init__", "api", "implementations"}
SHARED = {
    *("options", "presets", "checks", "problem", "blocks", "parts", "plan", "softmax"),
    *("operator_pair", "real_tokens", "unknown", "kept", "launching", "token_order"),
}


def module_of(path: Path) -> list[str]:
    """The names that lead to a file, from ``mra_plugin`` on."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return [*(["mra_plugin"] if parts[0] in ("ops", "registry") else []), *parts]


def imports(path: Path, *, deep: bool = True) -> set[str]:
    """Absolute names of all that a file imports, at any depth of code or at its top alone."""
    package = module_of(path)[:-1]
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if deep else tree.body:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            found |= {f"{base}.{name.name}" for name in node.names}
    return found


def sources(folder: str) -> list[Path]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    return paths


FILES = [path for folder in ("ops", "registry", "mra_plugin") for path in sources(folder)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_imported_upwards(path: Path) -> None:
    room = module_of(path)[1]
    for name in imports(path):
        library, *inner = name.split(".")
        if library == "mra_plugin":
            assert inner, f"imports the package's face, which is the roof: {name}"
            assert inner[0] in {room, *ROOMS[room]}, f"{room} imports {name}"
        else:
            assert room in OWNERS.get(library, {room}), f"{room} imports {name}"


def test_the_rooms_are_those_that_there_are() -> None:
    assert set(ROOMS) == {module_of(path)[1] for path in FILES}
    above: set[str] = set()
    for room, below in ROOMS.items():
        assert below <= above, f"{room} stands below what it imports"
        above.add(room)


def test_attentions_share_helpers_only() -> None:
    assert {module_of(path)[2] for path in sources("ops")} == ATTENTIONS | FACE | SHARED
    for path in sources("ops"):
        own = module_of(path)[2]
        used = {name.split(".")[2] for name in imports(path) if name.startswith("mra_plugin.ops.")}
        if own in ATTENTIONS:
            assert not used & ((ATTENTIONS - {own}) | FACE), f"{path} imports {used}"
        elif own not in FACE:
            assert not used & (ATTENTIONS | FACE), f"{path} is shared, and imports {used}"


def test_terms_and_stages_know_the_joint_alone() -> None:
    """A term of the eager softmax imports no other term; a kernel nothing but kernels."""
    terms = {"fine", "coarse"}
    for term in terms:
        used = {part for name in imports(ROOT / f"ops/eager/{term}.py") for part in name.split(".")}
        assert not used & (terms - {term} | {"operators"})
    for path in sources("ops/triton/kernels"):
        own = [name for name in imports(path) if name.startswith("mra_plugin.")]
        assert all(name.startswith("mra_plugin.ops.triton.kernels.") for name in own), path


def test_ways_to_average_know_neither_each_other_nor_the_face() -> None:
    ways, face = {"reference", "scan", "fft", "triton"}, {"api", "choice", "operators"}
    for path in sources("ops/ema"):
        own = module_of(path)[3]
        inside = (name.split(".")[3:] for name in imports(path) if ".ops.ema." in name)
        used = {one for one, *_ in inside}
        if own in ways:
            assert not used & ((ways - {own}) | face), f"{path} imports {used}"
        elif own not in face | {"__init__"}:
            assert not used & (ways | face), f"{path} is shared, and imports {used}"
    at_import = imports(ROOT / "ops/ema/triton/__init__.py", deep=False)
    assert not {one for one in at_import if one.split(".")[0] == "triton"}


def test_what_is_there_before_kernels_are_needs_no_triton() -> None:
    light = {"__init__", "operators", "kept"}
    for name in light:
        path = ROOT / "ops" / "triton" / f"{name}.py"
        at_import = imports(path, deep=False)
        assert not {one for one in at_import if one.split(".")[0] == "triton"}
        own = {one.split(".")[3] for one in at_import if one.startswith("mra_plugin.ops.triton.")}
        assert own <= light, name


@pytest.mark.parametrize("path", sources("benchmarks"), ids=lambda path: path.name)
def test_benchmarks_stay_out_of_the_command_line(path: Path) -> None:
    assert not {name for name in imports(path) if name.startswith("mra_plugin.cli")}
