"""The command `mra`.

torch and transformers are imported by the commands that need them, so that ``--help`` is quick.
"""

import typer

from .compare.command import compare
from .convert import convert
from .info import info
from .plot import plot
from .report import report
from .train import train
from .tune import tune

app = typer.Typer(
    name="mra",
    help="MRA attention for long documents: compare, tune, draw, convert, train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(compare)
app.command()(convert)
app.command()(info)
app.command()(plot)
app.command()(report)
app.command()(train)
app.command()(tune)
