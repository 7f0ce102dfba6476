"""The table of versions in docs/compatibility.md is what pyproject.toml and the constraints say."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What a user's code runs with; other extras are tools, and the demo is a model.
EXTRAS = ("report", "train", "examples")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    stated = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {one.name: str(one.specifier).removeprefix("==") for one in stated}


def test_table_says_what_is_accepted_and_what_was_run() -> None:
    extras = [line for name in EXTRAS for line in PROJECT["optional-dependencies"][name]]
    asked = [Requirement(line) for line in (*PROJECT["dependencies"], *extras)]
    oldest, newest = pins("constraints-oldest.txt"), pins("constraints.txt")
    expected = {
        one.name: (str(one.specifier), oldest[one.name], newest[one.name])
        for one in asked
        if one.name != PROJECT["name"]
    }
    table = (ROOT / "docs" / "compatibility.md").read_text()
    rows = re.findall(r"^\| ([\w-]+) \|(.*?)\|(.*?)\|(.*?)\|.*\|$", table, re.MULTILINE)
    shown = {name: tuple(cell.strip().strip("`") for cell in cells) for name, *cells in rows}
    del shown["package"]
    assert shown == expected
    assert PROJECT["requires-python"] == ">=3.11"
    assert "with Python 3.11 on" in table
