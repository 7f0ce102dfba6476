"""Who imports whom: nothing runs upwards, and implementations don't know each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each implementation of the operators may import of its own package.
SHARED = {"options", "blocks", "choice", "coarse", "pooled", "problem"}
IMPLEMENTATIONS = {
    "reference": SHARED,
    "exact": SHARED,
    "eager": SHARED | {"head_group", "operator_pair"},
    "head_group": SHARED | {"tiles"},
    "tiles": set(),
    "operator_pair": {"options", "problem"},
    "problem": {"options", "blocks"},
    "nystrom": {"blocks", "checks"},
}


def imports(path: Path, package: str) -> set[str]:
    """Absolute names of all modules that a file of ``package`` imports, at any depth of code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            found |= {base} | {f"{base}.{name.name}" for name in node.names}
    return found


def sources(folder: str) -> list[Path]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    return paths


@pytest.mark.parametrize(
    ("folder", "foreign"),
    [("ops", {"transformers", "xformers", "pluggy"}), ("registry", {"transformers", "triton"})],
)
def test_nothing_is_imported_upwards(folder: str, foreign: set[str]) -> None:
    own = f"mra_plugin.{folder}"
    for path in sources(folder):
        inner = path.parent.relative_to(ROOT / folder).parts
        for name in imports(path, ".".join([own, *inner])):
            assert name.split(".")[0] not in foreign, f"{path.name} imports {name}"
            if name.startswith("mra_plugin"):
                assert name == "mra_plugin" or name.startswith(own), f"{path.name} imports {name}"


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_implementations_share_helpers_only(implementation: str) -> None:
    names = imports(ROOT / "ops" / f"{implementation}.py", "mra_plugin.ops")
    used = {name.split(".")[2] for name in names if name.startswith("mra_plugin.ops.")}
    assert used <= IMPLEMENTATIONS[implementation]
