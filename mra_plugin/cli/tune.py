"""`mra tune`: the fastest settings of MRA attention that are close enough, by measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mra_plugin.environment import parse_device
from mra_plugin.errors import UserError

from .console import console
from .convert import convert_and_show
from .errors import one_clear_line
from .options import DeviceOption, ModelArgument, parse_lengths
from .progress import progress_bar

if TYPE_CHECKING:
    from mra_plugin.tuning.result import Metric


def tune(
    model: ModelArgument,
    text: Annotated[
        Path, typer.Option(metavar="FILE", help="Text of the kind that the model is to read.")
    ],
    target: Annotated[
        str, typer.Option(metavar="SHARE", help="Least closeness to exact attention, up to 1.")
    ] = "0.99",
    lengths: Annotated[
        str,
        typer.Option(metavar="N,N,...", help="Tokens of your inputs, special tokens included."),
    ] = "1024,4096",
    metric: Annotated[
        str,
        typer.Option(
            metavar="METRIC",
            help="What closeness is: sentence, the cosine of the means of all tokens; token, the "
            "mean cosine of the tokens; ranking, the share of a document's three nearest others "
            "that stay.",
        ),
    ] = "sentence",
    device: DeviceOption = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT", help="Also write MODEL with these settings, as `mra convert` does."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint that OUT holds.")
    ] = False,
) -> None:
    """Finds the fastest settings of MRA attention that are close enough to exact attention.

    Measures the whole encoder on this machine, on your text: half of it is searched with, and what
    is shown comes from the other half. The settings have to reach the target on both, at every
    length. It takes minutes. If nothing gains time and is close enough, exact attention is the
    better choice: the command says so, writes nothing and ends with exit code 1.

    Example: `mra tune MODEL --text FILE --target 0.99 --lengths 1024,4096 --save tuned`
    """
    # Only now: these import torch.
    import torch

    from mra_plugin.convert.job import check_source
    from mra_plugin.convert.request import ConversionRequest
    from mra_plugin.convert.writing import check_target
    from mra_plugin.encoders.loading import load_encoder
    from mra_plugin.encoders.positions import longest_input
    from mra_plugin.encoders.pretrained import check_folder
    from mra_plugin.encoders.text import read_text
    from mra_plugin.tuning.tune import tune as run

    from .tune_report import print_found

    with one_clear_line():
        least, wanted, kind = _target(target), parse_lengths(lengths), _metric(metric)
        place, content = parse_device(device), read_text(text)
        if save is not None:
            check_folder(model, "MODEL")
            check_target(save, model, overwrite)
        with progress_bar() as progress:
            task = progress.add_task("loading the model", total=1)
            if save is not None:
                check_source(model)
            encoder, tokenizer = load_encoder(model, place, torch.float32, "MODEL")
            found = run(
                encoder,
                tokenizer,
                content,
                least,
                lengths=wanted,
                metric=kind,
                progress=lambda share, what: progress.update(
                    task, completed=share, description=what
                ),
            )
        print_found(found, model, text, place)
        if found.options is None:
            raise typer.Exit(1)
        if save is not None:
            limit = longest_input(encoder)
            request = ConversionRequest(
                max_length=wanted[-1] if limit is not None and limit < wanted[-1] else None,
                params=found.options,
                lengths=wanted,
                device=place,
            )
            console().print()
            convert_and_show(model, save, request, content, overwrite)


def _target(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1:
        raise UserError(f"--target must be a number above 0 and up to 1, got {text!r}")
    return number


def _metric(name: str) -> Metric:
    from mra_plugin.tuning.result import METRICS

    for one in METRICS:
        if name == one:
            return one
    raise UserError(f"--metric must be {' or '.join(METRICS)}, got {name!r}")
