"""Figures of `mra compare` in a report, alone and beside those of the benchmarks."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.synthetic_results import closeness, comparison, results, timing, write
from typer.testing import Result

from mra_plugin.cli.compare.report import Report
from mra_plugin.encoders.measure import Comparison, Cost
from mra_plugin.errors import UserError
from mra_plugin.ops import PRESETS, MRAOptions
from mra_plugin.report.results import Results
from mra_plugin.report.sections import NAMES, section
from mra_plugin.report.statements import statements
from mra_plugin.report.update import updated

Read = Callable[..., list[Results]]
COMPARE = "<!-- mra report: compare -->\n<!-- end of mra report -->\n"
TABLE = """\
| tokens | exact | MRA, 8 blocks per row | speed-up | token cosine | sentence cosine |
| ---: | ---: | ---: | ---: | ---: | ---: |
| 512 | 100 ms | 125 ms | 0.80x | 0.959 | 0.949 |
| 4096 | 6.40 s | 1.60 s | 4.0x | 0.926 | 0.916 |
"""


def test_a_table_for_each_attention(read: Read) -> None:
    new = updated(COMPARE, read(comparison()))
    assert TABLE in new
    assert "| tokens | exact | nystrom | speed-up | token cosine | sentence cosine |" in new
    assert "| 512 | 100 ms | 50.0 ms | 2.0x | 0.700 | 0.690 |" in new
    assert "all-MiniLM-L6-v2 reading Python's language reference: median time" in new
    assert "exact attention (sdpa)" in new
    assert "The model's 512 position embeddings are repeated up to 4096." in new
    assert "±" not in new


def test_options_that_are_written_out_are_told_as_a_preset(read: Read) -> None:
    content = comparison()
    preset = PRESETS["close"]
    for params, name in (
        (asdict(preset), "MRA, preset close"),
        (
            asdict(replace(preset, block_per_row=preset.block_per_row + 1)),
            f"MRA, preset close, {preset.block_per_row + 1} blocks per row",
        ),
        (asdict(MRAOptions(block_per_row=8)), "MRA, 8 blocks per row"),
    ):
        content["attention"]["mra"] = params
        assert f"| tokens | exact | {name} | speed-up |" in updated(COMPARE, read(content))


def test_settings_of_one_encoder_stand_beside_each_other(read: Read) -> None:
    preset = PRESETS["close"]
    others = [
        comparison(attention={"mra": asdict(options), "nystrom": {}})
        for options in (preset, replace(preset, block_per_row=preset.block_per_row + 1))
    ]
    found = read(comparison(), *others)
    settings = COMPARE.replace("compare", "settings")
    new = updated(settings, found)
    assert "| MRA | 512 tokens | 4096 tokens |" in new
    figures = "0.80x / 0.959 / 0.949 | 4.0x / 0.926 / 0.916 |"
    more = f"preset close, {preset.block_per_row + 1} blocks per row"
    for name in ("8 blocks per row", "preset close", more):
        assert f"| {name} | {figures}" in new
    # Alone, a preset stands for them all.
    compared = updated(COMPARE, found)
    assert "| MRA, preset close |" in compared
    assert "blocks per row" not in compared
    assert "| nystrom |" in compared


def test_only_what_was_compared_has_a_section(read: Read) -> None:
    (found,) = read(comparison())
    assert found.title == "cpu (x86_64, 2 threads), float32"
    assert [name for name in NAMES if section(name, found)] == ["compare", "machine"]
    machine = section("machine", found)
    assert machine is not None
    assert machine.text == f"{found.title}; python 3.11.7, torch 2.13.0; 2026-02-04."
    (sentence,) = statements(found)
    assert "at 4096 tokens: 4.0 times as fast with MRA, 8 blocks per row, as with" in sentence
    assert sentence.endswith("cosine of the output 0.926 by token.")


def test_both_kinds_of_files_together(read: Read) -> None:
    speed = COMPARE.replace("compare", "speed")
    machine = COMPARE.replace("compare", "machine")
    found = read(comparison(), results([timing("attention", "mra", 512, "forward")]))
    new = updated(COMPARE + speed + machine, found)
    assert TABLE in new
    assert "| 512 | 8 | 1.1 (" in new
    # Each of these sections has one owner, and the machines' names itself.
    assert "**" not in new
    assert "2026-02-04." in new
    assert "commit 226c3a75e5." in new


def test_the_last_figure_of_a_length_counts(read: Read) -> None:
    again = comparison()
    again["results"] = [again["results"][1]]
    again["results"][0]["approximate"]["seconds"] = 3.2
    (found,) = read(comparison(), again)
    assert [(one.attention, one.tokens, one.seconds) for one in found.encoders] == [
        ("mra", 512, 0.125),
        ("mra", 4096, 3.2),
        ("nystrom", 512, 0.05),
    ]
    assert found.notes == ("1 of the measurements were repeated later: the last ones count",)


def test_what_the_command_writes_can_be_read(read: Read) -> None:
    cost = Cost((0.5, 0.25, 0.75), None)
    settings = {key: comparison()[key] for key in ("date", "versions", "model", "text", "device")}
    settings |= {"dtype": "float32", "threads": 2, "exact": "sdpa"}
    written = Report(
        settings,
        {"mra": {"block_per_row": 4}},
        {"mra": [Comparison(64, cost, cost, 0.9, float("nan"))]},
    )
    (found,) = read(json.loads(written.json()))
    (one,) = found.encoders
    assert (one.tokens, one.exact_seconds, one.seconds, one.speed_up) == (64, 0.5, 0.5, 1)
    assert (one.token_cosine, one.sentence_cosine) == (0.9, None)


def test_what_is_repeated_is_told_by_its_field(read: Read) -> None:
    (found,) = read(comparison(repeated={"length": 64, "positions": None, "text": 50}))
    assert {one.remarks for one in found.encoders} == {
        ("the text has 50 tokens and is repeated up to 64",)
    }
    older = comparison()
    del older["repeated"]
    (found,) = read(older)
    assert {one.remarks for one in found.encoders} == {()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"results": []}, "its 'results' are empty"),
        ({"results": [{"attention": "mra"}]}, "results[0] has no 'tokens'"),
        ({"device": None}, "the file has no 'device'"),
        ({"notes": "none"}, "'notes' must be a list of texts, got 'none'"),
        ({"attention": ["mra"]}, "'attention' must be an object"),
        ({"repeated": ["text"]}, "'repeated' must be an object"),
        ({"repeated": {"text": 8}}, "'repeated' has no 'length'"),
    ],
)
def test_damaged_files(read: Read, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        read(comparison(**changes))
    assert "0.json" in str(error.value)
    assert message in str(error.value)


def test_page(mra_report: Callable[..., Result], tmp_path: Path) -> None:
    file = write(tmp_path / "compare.json", comparison())
    other = write(tmp_path / "few.json", results([closeness("mra", 512, 8)]))
    done = mra_report(file, other, "--out", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    page = (tmp_path / "report" / "index.html").read_text()
    assert "MRA, 8 blocks per row" in page
    assert "A whole encoder</a>" in page
    # Only one of the two has plots, so their names need no ending.
    assert (tmp_path / "report" / "error-cost.svg").exists()
    assert "| 4096 | 6.40 s | 1.60 s |" in (tmp_path / "report" / "results.md").read_text()
