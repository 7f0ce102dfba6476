"""How text reaches the terminal: as it is, never as markup, whoever chose the words."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(stderr: bool = False) -> Console:
    """A console that takes neither ``[red]`` nor ``:smile:`` in a text for anything else."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def table_of_figures(title: str | None = None, leading: int = 0) -> Table:
    """A table without a frame.

    Args:
        title: stands above it, on the left.
        leading: empty lines between rows.
    """
    return Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        leading=leading,
    )


def table_of_facts() -> Table:
    """A table of names and what they are, without lines."""
    return Table(box=None, show_header=False, padding=(0, 2, 0, 0))


def table_of_headed_facts(*headers: str) -> Table:
    """The same under headers, the last column of which takes what room there is."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def plain(value: Any) -> Text:
    """A text, or a path, for places where rich reads markup whatever the console says."""
    return Text(printable(value))


def printable(value: Any) -> str:
    """A text that any terminal takes: names of files may hold bytes that are no characters."""
    return str(value).encode(errors="backslashreplace").decode()
