import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.synthetic_results import closeness, gpu_results, results
from typer.testing import Result

from mra_plugin.errors import UserError
from mra_plugin.report.results import Results
from mra_plugin.report.update import updated

MACHINE = "<!-- mra report: machine -->\n{}<!-- end of mra report -->\n"


def test_only_marked_parts_change_and_a_second_time_nothing(cpu: Results) -> None:
    old = MACHINE.format("old, typed by hand\n")
    text = f"# Title\n\nBefore\n\n{old}\nAfter | {{x}}"
    new = updated(text, [cpu])
    before, _, rest = new.partition("<!-- mra report: machine -->")
    generated, _, after = rest.partition("<!-- end of mra report -->")
    assert (before, after) == ("# Title\n\nBefore\n\n", "\n\nAfter | {x}")
    assert generated.startswith("\n\nImaginary CPU \\<7\\>, 2 threads")
    assert generated.endswith("commit 226c3a75e5.\n\n")
    assert updated(new, [cpu]) == new


def test_several_parts(cpu: Results) -> None:
    names = ["retrieval", "speed", "layer", "closeness", "growth", "memory", "budget", "machine"]
    text = "".join(f"<!-- mra report: {name} -->\n<!-- end of mra report -->\n" for name in names)
    new = updated(text, [cpu])
    assert new.count("<!-- mra report: ") == new.count("<!-- end of mra report -->") == 8
    assert "| 1024 | 8 | 2.1 (1.8 to 2.4) |" in new
    assert "| 4096 | 8 | 6.2% |" in new
    assert "| 1.6x | 0.768 | 98% |" in new


def test_several_machines_are_named(read: Callable[..., list[Results]]) -> None:
    text = "<!-- mra report: speed -->\n<!-- end of mra report -->\n"
    new = updated(text, read(results(), gpu_results()))
    assert "**Imaginary CPU \\<7\\>, 2 threads, float32**" in new
    assert "**Imaginary GPU, bfloat16**" in new


def test_markers_in_code_are_text(cpu: Results) -> None:
    code = "```\n<!-- mra report: nothing -->\n```\n"
    new = updated(code + MACHINE.format(""), [cpu])
    assert new.startswith(code)
    assert "Imaginary" in new


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no markers\n", "there is nothing to update"),
        (MACHINE.format("").replace("machine", "sped"), "line 1: there is no section 'sped' (did"),
        ("\n<!-- mra report: speed -->\n", "line 2: the section 'speed' has no '<!-- end of mra"),
        (
            "<!-- mra report: speed -->\n" + MACHINE.format(""),
            "line 1: the section 'speed' has no",
        ),
        ("<!-- end of mra report -->\n", "line 1: '<!-- end of mra report -->' ends nothing"),
        (MACHINE.format("").replace("machine", "stages"), "nothing for section 'stages' was"),
    ],
)
def test_what_can_not_be_updated(
    cpu: Results,
    cpu_file: Path,
    mra_report: Callable[..., Result],
    tmp_path: Path,
    text: str,
    message: str,
) -> None:
    with pytest.raises(UserError) as error:
        updated(text, [cpu])
    assert message in str(error.value)
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(MACHINE.format(""))
    bad.write_text(text)
    refused = mra_report(cpu_file, "--update", good, "--update", bad)
    assert refused.exit_code == 2
    assert "--update" in refused.stderr
    assert message in refused.stderr
    assert good.read_text() == MACHINE.format("")
    assert bad.read_text() == text


def test_command_updates_files_and_makes_no_folder(
    cpu_file: Path,
    cpu: Results,
    mra_report: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "page.md"
    path.write_text(MACHINE.format("old\n"))
    done = mra_report(cpu_file, "--update", path)
    assert done.exit_code == 0, done.output
    assert path.read_text() == updated(MACHINE.format("old\n"), [cpu])
    assert done.stdout == f"{path}\n"
    assert not (tmp_path / "report").exists()


def test_unreadable_file_to_update(
    cpu_file: Path, mra_report: Callable[..., Result], tmp_path: Path
) -> None:
    refused = mra_report(cpu_file, "--update", tmp_path / "none.md")
    assert refused.exit_code == 2
    assert "can't read --update" in refused.stderr


def test_section_that_only_one_machine_has(read: Callable[..., list[Results]]) -> None:
    text = "<!-- mra report: budget -->\n<!-- end of mra report -->\n"
    new = updated(text, read(gpu_results(), results([closeness("mra", 512, 8)])))
    assert "| 512 | 8 | 50% |" in new
    assert "**" not in new


def test_a_file_stays_whole_on_a_full_disk(
    cpu_file: Path,
    mra_report: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "page.md"
    path.write_text(MACHINE.format("old\n"))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused = mra_report(cpu_file, "--update", path)
    assert refused.exit_code == 2
    assert refused.stderr.endswith(f"can't write --update '{path}': No space left on device\n")
    assert path.read_text() == MACHINE.format("old\n")
    assert list(tmp_path.iterdir()) == [path]
