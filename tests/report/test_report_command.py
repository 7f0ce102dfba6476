import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.synthetic_results import closeness, results, timing, write
from typer.testing import Result

from mra_plugin.report.sections import NAMES

Run = Callable[..., Result]
PLOTS = {
    *("ranking", "ranking-speed", "speed-up", "time", "memory", "layer-speed-up"),
    *("error-cost", "error-density", "error-cost-additions"),
}


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cpu_file: Path) -> Path:
    from mra_plugin.report.folder import write_report
    from mra_plugin.report.reading import read_results

    folder = tmp_path_factory.mktemp("report") / "report"
    write_report(read_results([cpu_file]), folder)
    return folder


def test_files(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    plots = {f"{name}.{kind}" for name in PLOTS for kind in ("svg", "png")}
    assert names == {"index.html", "results.md"} | plots
    for name in PLOTS:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (folder / f"{name}.svg").read_bytes()


def test_page_needs_nothing_else(folder: Path) -> None:
    page = Page((folder / "index.html").read_text())
    assert not page.all("script")
    for _, attributes in page.elements:
        for name in ("src", "srcset", "href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), value[:80]
    assert "http" not in page.text


def test_page_can_be_read_without_seeing_it(folder: Path) -> None:
    page = Page((folder / "index.html").read_text())
    pictures = page.all("img")
    assert len(pictures) == len(PLOTS)
    assert all(len(picture["alt"] or "") > 60 for picture in pictures)
    assert len(page.all("table")) == len(page.all("caption")) > 10
    regions = [one for one in page.all("div") if one.get("role") == "region"]
    assert all(region["aria-label"] for region in regions)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [link["href"] for link in page.all("a")]
    assert links
    assert {link.removeprefix("#") for link in links if link} <= ids


def test_page_escapes_and_shows_the_figures(folder: Path) -> None:
    page = Page((folder / "index.html").read_text())
    assert "no kernel for <cpu> | float32" in page.text
    assert not page.all("cpu")
    assert "25.2 (21.4 to 29.0)" in page.text
    assert "Imaginary CPU <7>, 2 threads, float32" in page.text


def test_markdown_has_the_same_tables(folder: Path) -> None:
    text = (folder / "results.md").read_text()
    page = Page((folder / "index.html").read_text())
    assert text.count("| --- |") + text.count("| ---: |") >= len(page.all("table"))
    assert "| mra | 1.1 (0.95 to 1.3) | 2.1 (1.8 to 2.4) |" in text


def test_several_machines(mra_report: Run, cpu_file: Path, gpu_file: Path, tmp_path: Path) -> None:
    few = write(tmp_path / "few.json", results([closeness("mra", 512, 8)]))
    done = mra_report(few, gpu_file, "--out", tmp_path / "made" / "here")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path}/made/here/index.html\n"
    assert "gpu.json: 1 benchmark of unknown kind 'tiles' left out" in done.stderr
    page = Page((tmp_path / "made" / "here" / "index.html").read_text())
    assert "Where the time goes" in page.text
    assert "chosen blocks" in page.text
    assert (tmp_path / "made" / "here" / "time-imaginary-gpu-bfloat16.svg").exists()
    assert (
        tmp_path / "made" / "here" / "error-cost-imaginary-cpu-7-2-threads-float32.png"
    ).exists()


def refusal(result: Result) -> str:
    """The one line that a refused command prints."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_missing_packages(
    mra_report: Run,
    cpu_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
) -> None:
    for name in [name for name in sys.modules if name.startswith("mra_plugin.report.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    line = refusal(mra_report(cpu_file, "--out", tmp_path / "report"))
    assert line == f'mra: {package} is not installed: pip install "mra-plugin[report]"'
    page = tmp_path / "page.md"
    page.write_text("<!-- mra report: speed -->\n<!-- end of mra report -->\n")
    assert mra_report(cpu_file, "--update", page).exit_code == 0


def test_help_names_every_section(mra_report: Run) -> None:
    words = re.findall(r"\w+", mra_report("--help").output)
    assert set(NAMES) <= set(words)


def test_bad_arguments(mra_report: Run, cpu_file: Path, tmp_path: Path) -> None:
    assert "can't read" in refusal(mra_report(tmp_path / "none.json"))
    foreign = write(tmp_path / "foreign.json", {"results": []})
    assert "foreign.json is no result file" in refusal(mra_report(foreign))
    assert "can't write --out" in refusal(mra_report(cpu_file, "--out", foreign))
    many = [timing("attention", "mra", 512, "forward") for _ in range(60)]
    for at, one in enumerate(many):
        one["extra_info"]["method"] = f"plugin {at}"
    line = refusal(mra_report(write(tmp_path / "many.json", results(many)), "--out", tmp_path))
    assert "the plot 'speed-up' would have 60 methods, at most 50 can be drawn" in line
