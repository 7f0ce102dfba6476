"""The pages of docs/: their Python runs, their commands parse, pictures and links are there."""

import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main
from helpers.letter_models import save_model
from transformers import (
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
)
from typer.testing import CliRunner

from mra_plugin.cli import app
from mra_plugin.encoders import measure
from mra_plugin.encoders.demo import demo_model
from mra_plugin.models.families import FAMILIES, ModelFamily
from mra_plugin.registry import api
from mra_plugin.registry.host import Registry
from mra_plugin.report.reading import read_results
from mra_plugin.report.update import updated

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def demo() -> dict[str, object]:
    return {"path": demo_model()}


def checkpoints() -> dict[str, object]:
    """What the commands of docs/long-documents.md would have written, in the current folder."""
    save_model(BertModel, Path("OUT"), max_position_embeddings=48)
    save_model(BertForSequenceClassification, Path("classifier"), max_position_embeddings=48)
    return {"path": "OUT", "folder": "long"}


def sentence_models() -> dict[str, object]:
    """Tiny models in the current folder beside the pretrained one."""
    save_model(BertModel, Path("OUT"), max_position_embeddings=64)
    save_model(BertForSequenceClassification, Path("reranker"), num_labels=1)
    save_model(BertForMaskedLM, Path("splade"))
    save_model(BertModel, Path("colbert"))
    AutoTokenizer.from_pretrained("colbert", mask_token="z").save_pretrained("colbert")
    return demo()


# Names that the examples of a page take for granted.
GIVEN: dict[str, Callable[[], dict[str, object]]] = {
    "attention.md": demo,
    "choosing-the-budget.md": demo,
    "how-it-works.md": demo,
    "long-documents.md": checkpoints,
    "with-sentence-transformers.md": sentence_models,
}
WITHOUT_PYTHON = {"README.md", "architecture.md", "compatibility.md", "decisions.md", "results.md"}
# Where more is checked of a page than that it runs.
RUN_ELSEWHERE = {"scaling.md": ROOT / "tests" / "parallel" / "test_parallel_docs.py"}
# How commands run here: small, on PATH and FILE of a toy.
SMALL = {"compare": ["--lengths", "16"], "info": [], "plot": ["--length", "64"]}


def code_blocks(text: str, *languages: str) -> list[str]:
    """The code in these languages; in lists it is indented."""
    found = re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, language, code in found if language in languages]


def shell_lines(path: Path) -> list[list[str]]:
    """Every command in a page's shell blocks, in words."""
    blocks = code_blocks(path.read_text(), "sh", "bash")
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def mra_arguments(words: list[str]) -> list[str] | None:
    """What `mra` is given in a command, also where a launcher starts it."""
    if "mra_plugin.cli" in words:
        return words[words.index("mra_plugin.cli") + 1 :]
    return words[1:] if Path(words[0]).name == "mra" else None


MRA_LINES = [
    (page, arguments)
    for page in [*PAGES, "../README.md", "../benchmarks/README.md"]
    for words in shell_lines(DOCS / page)
    if (arguments := mra_arguments(words)) is not None
]
SMALL_LINES = [(page, line) for page, line in MRA_LINES if page in PAGES and line[0] in SMALL]


@pytest.fixture
def _fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page registers is gone afterwards."""
    monkeypatch.setattr(api, "_registry", Registry())


@pytest.mark.usefixtures("_fresh_registry")
@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN_ELSEWHERE])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = code_blocks((DOCS / page).read_text(), "python")
    assert bool(examples) is (page not in WITHOUT_PYTHON)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs", **GIVEN.get(page, dict)()}
    for example in examples:
        exec(compile(example, page, "exec"), names)


@pytest.mark.parametrize("page", RUN_ELSEWHERE)
def test_other_tests_run_the_rest(page: str) -> None:
    assert f"docs/{page}" in RUN_ELSEWHERE[page].read_text()
    assert code_blocks((DOCS / page).read_text(), "python")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_model_has_an_example(family: ModelFamily) -> None:
    page = (DOCS / "models" / f"{family.model_type}.md").read_text()
    shown = "".join(code_blocks(page, "python"))
    models = {place.split(":")[1] for place in family.models.values()}
    assert len(models) > 5
    for name in models:
        assert f"{name}(" in shown, f"{name} has no example"


@pytest.mark.parametrize(("page", "arguments"), MRA_LINES, ids=str)
def test_commands_parse(page: str, arguments: list[str]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert arguments[0] in commands, page
    # Raises at an unknown option, or a missing or surplus argument.
    commands[arguments[0]].make_context(arguments[0], arguments[1:])


@pytest.mark.parametrize(("page", "arguments"), SMALL_LINES, ids=str)
def test_commands_run(
    page: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "SECONDS", 0.0)
    save_model(BertModel, Path("PATH"), max_position_embeddings=48)
    Path("FILE").write_text("t h e q u i c k b r o w n f o x " * 5)
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    result = CliRunner().invoke(app, [*arguments, *SMALL[arguments[0]]])
    assert result.exit_code == 0, (page, result.output)


def test_pages_that_use_make_name_its_targets() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [words for page in PAGES for words in shell_lines(DOCS / page) if words[0] == "make"]
    assert lines
    assert {words[1] for words in lines} <= targets


def test_pictures_come_with_the_command_that_made_them() -> None:
    shown: set[str] = set()
    for page in PAGES:
        here = set(re.findall(r"!\[[^\]]+\]\((pictures/[^)]+)\)", (DOCS / page).read_text()))
        made = {
            arguments[arguments.index("--save") + 1]
            for arguments in filter(None, map(mra_arguments, shell_lines(DOCS / page)))
            if arguments[0] == "plot" and "--save" in arguments
        }
        assert {f"docs/{picture}" for picture in here} == made, page
        shown |= here
    assert shown == {f"pictures/{path.name}" for path in (DOCS / "pictures").iterdir()}
    for picture in shown:
        assert (DOCS / picture).read_bytes().startswith(b"\x89PNG")
        assert (DOCS / picture).stat().st_size < 200_000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (DOCS / page).read_text()):
        assert target.startswith("https://") or (DOCS / page).parent.joinpath(target).exists(), (
            target
        )


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "docs/decisions.md"])
def test_files_that_are_named_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = re.findall(r"`([\w-]+(?:/[\w-]+)+/?(?:\.\w+)?)`", text)
    assert named or page == "docs/decisions.md"
    for name in named:
        places = [
            folder / end for folder in (ROOT, ROOT / "mra_plugin") for end in (name, f"{name}.py")
        ]
        found = any(place.exists() for place in places)
        assert found or "NAME" in name, f"{page} names {name}"
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_index_lists_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    for page in set(PAGES) - {"README.md"}:
        assert f"({page})" in index


def test_tables_are_those_of_the_result_files() -> None:
    """As `mra report` would write them; benchmarks/README.md has the command."""
    results = read_results(sorted((ROOT / "benchmarks" / "results").glob("*.json")))
    texts = {path: path.read_text() for path in [ROOT / "README.md", *DOCS.rglob("*.md")]}
    marked = {path for path, text in texts.items() if "\n<!-- mra report: " in text}
    assert ROOT / "README.md" in marked
    for path in marked:
        assert updated(texts[path], results) == texts[path], f"{path} is out of date"


@pytest.mark.parametrize("page", PAGES)
def test_files_shown_are_the_files(page: str) -> None:
    """A block under `<!-- same as FILE -->` is that file."""
    pattern = r"^<!-- same as (\S+) -->\n```\w+\n(.*?)^```$"
    found = re.findall(pattern, (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == (2 if page == "adding-a-backend.md" else 0)
    for path, text in found:
        assert text == (ROOT / path).read_text(), path
