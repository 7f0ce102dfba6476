"""Settings from options and YAML, and what is said of bad ones."""

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import Result

from mra_plugin.cli import app
from mra_plugin.training.config import TASKS, TYPES, TrainingConfig
from mra_plugin.training.run import PREPARE
from mra_plugin.training.settings_file import settings_from_yaml, settings_to_yaml

Train = Callable[..., Result]


def refusal(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("mra: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_yaml_gives_back_the_settings(tmp_path: Path) -> None:
    config = TrainingConfig("m", ("a", "b"), steps=5, learning_rate=1e-5, closeness_lengths=(64,))
    (tmp_path / "c.yaml").write_text(settings_to_yaml(config))
    assert TrainingConfig(**settings_from_yaml(tmp_path / "c.yaml")) == config


def test_each_setting_is_an_option_and_its_help_gives_the_default() -> None:
    command: Any = typer.main.get_command(app)
    options = {option.name: option for option in command.commands["train"].params}
    assert TYPES.keys() <= options.keys()
    assert options["task"].help.startswith("mlm (default)")
    assert options["batch_size"].help == "Examples of a step, over all processes (8)."
    assert options["epochs"].help == "Passes over the data, for tasks (3)."
    assert options["learning_rate"].help == "After the warm-up (5e-5)."


def test_each_task_is_prepared() -> None:
    assert tuple(PREPARE) == TASKS


def test_yaml_in_other_spellings(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("learning_rate: 5e-5\ndata: texts\nwarmup: 0\n")
    assert settings_from_yaml(tmp_path / "c.yaml") == {
        "learning_rate": 5e-5,
        "data": ("texts",),
        "warmup": 0.0,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lerning_rate: 1", "unknown key 'lerning_rate' (did you mean 'learning_rate'?)"),
        ("steps: many", "steps must be of type int, got 'many'"),
        ("steps: 1.5", "steps must be of type int, got 1.5"),
        ("bf16: 1", "bf16 must be of type bool, got 1"),
        ("- a", "must hold keys and values"),
        ("a: [", "is not YAML"),
        ("seed: 2020-99-99", "is not YAML: month must be in 1..12"),
        (f"seed: {'9' * 5000}", "is not YAML"),
        (f"data: {'[' * 10**5}", "is nested too deeply"),
        (
            "data: d\nsteps: 1\nlearning_rate: .inf",
            "learning_rate must be a finite number, got inf",
        ),
        ("data: d\nsteps: 1\nepochs: 1e400", "epochs must be a finite number, got inf"),
        (f"learning_rate: {10**400}", "learning_rate must be of type float, got 1000"),
        ("data: d\ncloseness_lengths: []", "closeness_lengths must be positive numbers up to"),
    ],
)
def test_bad_yaml(train: Train, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    assert message in refusal(train("m", tmp_path / "o", "--config", tmp_path / "c.yaml"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": None}, "data must be at least one file, folder or glob"),
        ({"steps": None}, "steps must be given"),
        ({"steps": 0}, "steps must be a positive whole number, got 0"),
        ({"steps": 10**400}, "steps must be at most 2147483647, got 1000"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, got 4294967296"),
        ({"weight_decay": "inf"}, "weight_decay must be a finite number, got inf"),
        ({"mlm_weight": "nan"}, "mlm_weight must be a finite number, got nan"),
        ({"task": "clasify"}, "task must be one of mlm, clm, classify, tokens, qa, got 'clasify'"),
        ({"warmup": 1.5}, "warmup must be at least 0 and below 1, got 1.5"),
        ({"block_per_row": 4}, "give attention as well"),
        ({"preset": "close"}, "give attention 'mra' as well, got None"),
        ({"preset": "close", "attention": "sdpa"}, "give attention 'mra' as well, got 'sdpa'"),
        ({"preset": "near", "attention": "mra"}, 'preset must be "paper" or "close", got \'near\''),
        ({"data": "no-such"}, "data: no text files at 'no-such'"),
        ({"attention": "mrs"}, "no attention 'mrs' (did you mean 'mra'?)"),
        ({"attention": "ulysses"}, "attention 'ulysses' is for sequences in shards"),
        ({"length": 65}, "length must be at most 64"),
        ({"length": 2}, "length must be more than the 2 special tokens"),
        ({"batch_size": 3, "accumulate": 2}, "batch_size must be a multiple of 2"),
        ({"eval_share": 0.001}, "no text was held out by eval_share=0.001"),
        ({"distill": "self"}, "give eval_data or eval_share"),
        ({"mlm_weight": 0.5}, "give distill as well"),
        ({"distill": "./no", "eval_share": 0.3}, "can't load './no'"),
        ({"task": "qa"}, "must be JSON lines"),
        ({"model": "./no-such"}, "there is no folder './no-such'"),
    ],
)
def test_bad_options(
    train: Train, bert: Path, texts: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    given = {"data": texts, "steps": 2, **options}
    model = given.pop("model", bert)
    arguments = [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    assert message in refusal(train(model, tmp_path / "out", *arguments))
    assert not (tmp_path / "out" / "training.yaml").exists()


def test_a_precision_that_the_device_lacks(
    train: Train, bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    result = train(bert, tmp_path / "out", "--data", texts, "--steps", 1, "--fp16")
    assert "fp16 needs a GPU" in refusal(result)


def test_options_win_over_yaml(train: Train, bert: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"steps": 100, "data": [str(texts)]}))
    result = train(bert, tmp_path / "out", "--config", tmp_path / "c.yaml", "--steps", 1)
    assert result.exit_code == 0, result.output
    written = settings_from_yaml(tmp_path / "out" / "training.yaml")
    assert (written["steps"], written["data"], written["model"]) == (1, (str(texts),), str(bert))


def test_a_missing_package_is_named(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_datasets(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError("No module named 'datasets'", name="datasets")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_datasets)
    for name in [name for name in sys.modules if name.startswith("mra_plugin.training.")]:
        monkeypatch.delitem(sys.modules, name)
    line = refusal(train("m", tmp_path / "o", "--data", "d", "--steps", 1))
    assert 'datasets is not installed: pip install "mra-plugin[train]"' in line
