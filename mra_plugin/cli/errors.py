"""How a bad argument ends a command."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from mra_plugin.errors import UserError

BadArgumentError = UserError


@contextmanager
def one_clear_line() -> Iterator[None]:
    """Ends the command with exit code 2 and one line on stderr at a `BadArgumentError`."""
    try:
        yield
    except BadArgumentError as error:
        typer.echo(f"mra: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
