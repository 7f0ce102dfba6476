import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from mra_plugin.ops import preset_options
from mra_plugin.registry import build_attention, register_attention

Mra = Callable[..., Result]


def compared(mra: Mra, tmp_path: Path, *arguments: object) -> tuple[Result, dict[str, Any]]:
    figures = tmp_path / "figures.json"
    result = mra("compare", *arguments, "--json", figures)
    assert result.exit_code == 0, result.output
    return result, json.loads(figures.read_text())


def test_table_and_json_tell_the_same(
    mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path
) -> None:
    result, figures = compared(
        mra, tmp_path, "--model", tiny_bert, "--text", letters,
        "--lengths", "96,40", "--block-per-row", 1, "--device", "cpu",
    )  # fmt: skip
    title, *_, first, second = result.stdout.split("\n\n")[0].splitlines()
    assert title.strip() == "mra (block_per_row=1) beside exact attention"
    assert [line.split()[0] for line in (first, second)] == ["40", "96"]

    assert figures["attention"] == {"mra": {"block_per_row": 1}}
    assert figures["model"] == str(tiny_bert)
    assert figures["text"] == str(letters)
    assert figures["dtype"] == "float32"
    assert figures["exact"] == "sdpa"
    assert figures["versions"]["torch"]
    for line, row in zip((first, second), figures["results"], strict=True):
        for side in row["exact"], row["approximate"]:
            assert len(side["times"]) >= 3
            assert min(side["times"]) <= side["seconds"] <= max(side["times"])
            assert f"{side['peak_bytes'] / 1e6:.1f} MB" in line
        assert row["speed_up"] == row["exact"]["seconds"] / row["approximate"]["seconds"]
        assert f"{row['speed_up']:.2f}x" in line
        assert line.split()[-2] == f"{row['token_cosine']:.4f}"
        assert line.split()[-1] == f"{row['sentence_cosine']:.4f}"
        assert 0.3 < row["token_cosine"] < 0.99999


def test_a_budget_that_covers_everything_is_exact(
    mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path
) -> None:
    _, figures = compared(
        mra, tmp_path, "--model", tiny_bert, "--text", letters, "--lengths", 40,
        "--block-per-row", 2, "--dtype", "float64",
    )  # fmt: skip
    (row,) = figures["results"]
    assert row["token_cosine"] == pytest.approx(1, abs=1e-12)
    assert row["sentence_cosine"] == pytest.approx(1, abs=1e-12)


def test_each_attention_gets_a_table_and_only_the_parameters_it_has(
    mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path
) -> None:
    result, figures = compared(
        mra, tmp_path, "--model", tiny_bert, "--text", letters, "--lengths", "40",
        "--attention", "sdpa", "--attention", "mra", "--attention", "sdpa",
    )  # fmt: skip
    assert figures["attention"] == {"sdpa": {}, "mra": preset_options("close")}
    assert [row["attention"] for row in figures["results"]] == ["sdpa", "mra"]
    assert figures["results"][0]["token_cosine"] == pytest.approx(1, abs=1e-6)
    assert result.stdout.count("beside exact attention") == 2
    assert "mra (preset=close) beside exact attention" in result.stdout


def test_presets_and_options_over_them(
    mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path
) -> None:
    result, figures = compared(
        mra, tmp_path, "--model", tiny_bert, "--text", letters, "--lengths", "40,96",
        "--preset", "close", "--block-size", 8, "--block-per-row", 1, "--salient-keys", 3,
        "--exact-up-to", 50, "--coarse-key-size", 2,
    )  # fmt: skip
    preset = preset_options("close")
    changed = {"block_size": 8, "block_per_row": 1, "salient_keys": 3, "exact_up_to": 50}
    changed |= {"coarse_key_size": 2}
    assert figures["attention"] == {"mra": {**preset, **changed}}
    assert "mra: sequences of up to 50 tokens get exact attention" in result.stdout
    short, long = (row["token_cosine"] for row in figures["results"])
    assert short == pytest.approx(1, abs=1e-6)
    assert long < 0.99999
    title = "".join(result.stdout.split("beside")[0].split())
    assert title.startswith("mra(preset=close,")
    assert "block_per_row=1," in title


def test_other_attentions_with_a_budget_get_the_flag_or_eight(
    mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path
) -> None:
    @register_attention("with-budget", serves={"budget"})
    def build(*, block_per_row: int) -> Any:
        return build_attention("mra", block_per_row=block_per_row)

    given = ("--model", tiny_bert, "--text", letters, "--lengths", "40", "--attention")
    _, figures = compared(mra, tmp_path, *given, "with-budget")
    assert figures["attention"] == {"with-budget": {"block_per_row": 8}}
    _, figures = compared(mra, tmp_path, *given, "with-budget", "--block-per-row", 2)
    assert figures["attention"] == {"with-budget": {"block_per_row": 2}}
    result = mra("compare", *given, "with-budget", "--preset", "close")
    assert "--preset is an option of mra, which is not compared" in result.stderr


def test_notes_say_what_was_stretched(
    mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path
) -> None:
    text = ("--text", letters)
    result, figures = compared(mra, tmp_path, "--model", tiny_bert, *text, "--lengths", "48")
    assert "repeated" not in result.stdout
    assert figures["repeated"] == {"length": 48, "positions": None, "text": None}
    result, figures = compared(mra, tmp_path, "--model", tiny_bert, *text, "--lengths", "48,104")
    assert figures["repeated"] == {"length": 104, "positions": 48, "text": 102}
    assert "the model's 48 position embeddings are repeated up to 104" in result.stdout
    assert "the text has 102 tokens and is repeated up to 104" in result.stdout


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(
    mra: Mra, tiny_bert: Path, letters: Path, tmp_path: Path, dtype: str
) -> None:
    _, figures = compared(
        mra, tmp_path, "--model", tiny_bert, "--text", letters, "--lengths", "40", "--dtype", dtype
    )
    assert figures["dtype"] == dtype
    assert figures["results"][0]["token_cosine"] > 0.999


def test_pretrained_default_on_the_default_text(mra: Mra, tmp_path: Path) -> None:
    _, figures = compared(mra, tmp_path, "--lengths", "256", "--block-per-row", "4")
    assert figures["model"] == "all-MiniLM-L6-v2"
    (row,) = figures["results"]
    assert 0.9 < row["token_cosine"] < 0.999
    assert 0.9 < row["sentence_cosine"] < 0.999
