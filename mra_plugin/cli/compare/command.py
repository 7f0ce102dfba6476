"""`mra compare`: an encoder reads real text with exact attention and with others."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import console, printable
from ..errors import one_clear_line
from ..mra_options import takes_mra_options
from ..options import DeviceOption, ModelOption, TextOption
from ..progress import progress_bar


@takes_mra_options(without="close; what an MRA model's config says")
def compare(
    model: ModelOption = None,
    text: TextOption = None,
    lengths: Annotated[
        str, typer.Option(metavar="N,N,...", help="Tokens to read, special tokens included.")
    ] = "512,1024,2048,4096,8192",
    attention: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Attention to compare, see `mra info`; may be given more than once.",
            show_default="mra",
        ),
    ] = None,
    device: DeviceOption = None,
    dtype: Annotated[
        str, typer.Option(metavar="DTYPE", help="float32, float16, bfloat16 or float64.")
    ] = "float32",
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write all figures to this file.")
    ] = None,
    **mra_options: Any,
) -> None:
    """Shows how close to exact attention another one is, and how fast.

    Each row is one length: time and memory of a forward pass of the whole encoder, and the cosine
    between its output and the output with exact attention, by token and for the mean of all tokens
    ("sentence"). Other attentions than mra that have a budget get `--block-per-row` too, or else 8.

    Example: `mra compare --lengths 512,4096 --block-per-row 4 --json figures.json`
    """
    # Keeps the profiler's own log off the terminal; it reads this when torch is imported, which
    # the next lines do.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from .arguments import parse_job
    from .job import run

    with one_clear_line():
        job = parse_job(
            model=model,
            text=text,
            lengths=lengths,
            attentions=attention or ["mra"],
            mra_options=mra_options,
            device=device,
            dtype=dtype,
            json=json,
        )
        with progress_bar() as progress:
            task = progress.add_task("loading the model", total=len(job.lengths))
            report = run(
                job,
                started=lambda what: progress.update(task, description=what),
                finished=lambda: progress.advance(task),
            )
    screen = console()
    for name in report.results:
        screen.print(report.table(name), "")
    for note in report.notes:
        screen.print(printable(note), style="dim")
