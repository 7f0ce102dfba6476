"""How a bad argument ends a command."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mra_plugin.errors import UserError

from .console import printable


@contextmanager
def one_clear_line() -> Iterator[None]:
    """Ends the command with exit code 2 and one line on stderr at a `UserError`."""
    try:
        yield
    except UserError as error:
        typer.echo(f"mra: {' '.join(printable(error).split())}", err=True)
        raise typer.Exit(2) from None
