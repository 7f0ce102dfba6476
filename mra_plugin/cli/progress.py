"""The bar that a command shows while it measures."""

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from .console import console


def progress_bar() -> Progress:
    """A bar on stderr that vanishes at the end; nothing where there is no terminal."""
    terminal = console(stderr=True)
    # A bar leaves an empty line where there is no terminal, with older rich even if it is disabled.
    terminal.quiet = not terminal.is_terminal
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        console=terminal,
        transient=True,
        disable=terminal.quiet,
    )
