"""The examples of docs/models.md, run one after the other."""

import re
from pathlib import Path

import pytest

import mra_plugin

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs"}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    shown = "".join(examples)
    for name in mra_plugin.__all__:
        if name.startswith("Mra") and name != "MraPreTrainedModel":
            assert f"{name}(" in shown, f"{name} has no example"
