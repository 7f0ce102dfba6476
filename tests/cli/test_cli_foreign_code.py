"""Python that comes with a checkpoint is never run, and nobody is asked about it."""

import ast
import json
import shutil
from pathlib import Path

import pytest
from helpers.letter_data import save_lines
from typer.testing import CliRunner, Result

import mra_plugin.encoders
from mra_plugin.cli import app

SOURCE = Path(mra_plugin.encoders.__file__).parents[1]


@pytest.fixture
def foreign(tiny_bert: Path, tmp_path: Path) -> Path:
    """A checkpoint of a family that only its own Python knows; that leaves a trace if it runs."""
    model = shutil.copytree(tiny_bert, tmp_path / "foreign")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.ForeignConfig"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "code.py").write_text(
        "from transformers import BertConfig\n"
        f"open({str(tmp_path / 'it ran')!r}, 'w')\n"
        "class ForeignConfig(BertConfig): pass\n"
    )
    return model


@pytest.mark.parametrize(
    "command", ["convert", "compare", "train", "train from scratch", "plot", "tune"]
)
def test_a_checkpoint_with_code_is_refused(command: str, foreign: Path, tmp_path: Path) -> None:
    rows = save_lines(tmp_path / "rows.jsonl", [{"text": "a b", "label": one} for one in "xy"])
    training = ["--task", "classify", "--data", rows]
    arguments = {
        "convert": ["convert", foreign, tmp_path / "out", "--max-length", 96],
        "compare": ["compare", "--model", foreign, "--lengths", 8],
        "train": ["train", foreign, tmp_path / "out", *training],
        "train from scratch": ["train", foreign, tmp_path / "out", *training, "--from-scratch"],
        "plot": ["plot", "--model", foreign, "--save", tmp_path / "head.png"],
        "tune": ["tune", foreign, "--text", rows, "--save", tmp_path / "out"],
    }[command]
    result: Result = CliRunner().invoke(app, list(map(str, arguments)), input="y\n" * 9)
    assert result.exit_code == 2, result.output
    assert "needs Python code of its own, which is never run" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "it ran").exists()


def test_no_call_leaves_it_open() -> None:
    def loads(node: ast.AST) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("from_pretrained", "from_config")
            and ast.unparse(node.func.value) != "nn.Embedding"
        )

    trees = [ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")]
    calls = [ast.unparse(node) for tree in trees for node in ast.walk(tree) if loads(node)]
    assert len(calls) > 5
    assert all("**OWN_CODE_ONLY" in call for call in calls)
