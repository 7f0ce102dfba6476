"""How text reaches the terminal: as it is, never as markup, whoever chose the words."""

from typing import Any

from rich.console import Console
from rich.text import Text


def console(stderr: bool = False) -> Console:
    """A console that takes neither ``[red]`` nor ``:smile:`` in a text for anything else."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def plain(value: Any) -> Text:
    """A text, or a path, for places where rich reads markup whatever the console says."""
    return Text(printable(value))


def printable(value: Any) -> str:
    """A text that any terminal takes: names of files may hold bytes that are no characters."""
    return str(value).encode(errors="backslashreplace").decode()
