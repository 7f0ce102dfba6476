"""`mra report`: result files as a page, plots and tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mra_plugin.errors import UserError
from mra_plugin.files import write_whole

from .console import printable
from .errors import one_clear_line

if TYPE_CHECKING:
    from mra_plugin.report.results import Results


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS.json",
            help="What `pytest benchmarks --benchmark-json`, `mra compare --json` or "
            "`mra train --distill` (closeness.json) wrote.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder to write to.",
            show_default="report; nothing with --update",
        ),
    ] = None,
    update: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Markdown file to bring up to date between its markers; "
            "may be given more than once.",
        ),
    ] = None,
) -> None:
    """Shows what was measured: one HTML page, its plots, and the tables as Markdown.

    With `--update`, replaces in a file what stands between `<!-- mra report: NAME -->` and
    `<!-- end of mra report -->` by the section NAME: retrieval, retrieval_all, compare, settings,
    distillation, speed, speed_all, time, memory, memory_all, growth, layer, layer_memory, busy,
    closeness, additions, budget, pictures, stages, not_run or machine.

    Example: `mra report results.json --out report`
    """
    from mra_plugin.report.reading import read_results

    with one_clear_line():
        found = read_results(results)
        for note in (note for one in found for note in one.notes):
            typer.echo(printable(f"mra: {note}"), err=True)
        # All files first, so that none changes if another can't.
        texts = {path: _updated(path, found) for path in update or []}
        written = [path for path in texts if _replaced(path, texts[path])]
        if out is not None or not update:
            written += _report(found, out or Path("report"))[:1]
    for path in written:
        typer.echo(printable(path))


def _updated(path: Path, found: "list[Results]") -> str:
    from mra_plugin.report.update import updated

    try:
        return updated(path.read_bytes().decode(), found)
    except OSError as error:
        raise UserError(f"can't read --update {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--update {str(path)!r} is not a text file in UTF-8") from None
    except UserError as error:
        raise UserError(f"--update {str(path)!r}: {error}") from None


def _replaced(path: Path, text: str) -> bool:
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"can't write --update {str(path)!r}: {error.strerror}") from None
    return True


def _report(found: "list[Results]", folder: Path) -> list[Path]:
    try:
        from mra_plugin.report.folder import write_report
    except ModuleNotFoundError as error:
        if error.name not in ("jinja2", "matplotlib"):
            raise
        raise UserError(
            f'{error.name} is not installed: pip install "mra-plugin[report]"'
        ) from None
    try:
        return write_report(found, folder)
    except OSError as error:
        raise UserError(f"can't write --out {str(folder)!r}: {error.strerror}") from None
