"""The README's Python examples, run one after the other on a pretrained model."""

import re
from pathlib import Path

import pytest

from mra_plugin.encoders.demo import demo_model
from mra_plugin.registry import api, available_attention
from mra_plugin.registry.host import Registry

README = Path(__file__).parents[1] / "README.md"


def test_examples_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_registry", Registry())  # what others registered is not listed
    examples = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) >= 4
    names: dict[str, object] = {
        "path": demo_model(),
        "folder": str(tmp_path),
        "__name__": "readme",
    }
    for example in examples:
        exec(compile(example, str(README), "exec"), names)
    assert "'mra', 'nystrom', 'sdpa', 'ulysses', 'xformers'" in capsys.readouterr().out
    assert "mean" in {backend.name for backend in available_attention()}
