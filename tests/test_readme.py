"""The README's Python examples, run one after the other on a pretrained model."""

import re
from pathlib import Path

from mra_plugin.encoders.demo import demo_model

README = Path(__file__).parents[1] / "README.md"


def test_examples_run(tmp_path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(examples) == 2
    names: dict[str, object] = {
        "path": demo_model(),
        "folder": str(tmp_path),
        "__name__": "readme",
    }
    for example in examples:
        exec(compile(example, str(README), "exec"), names)
