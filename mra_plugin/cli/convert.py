"""`mra convert`: an encoder made for longer documents, or turned into the MRA family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mra_plugin.environment import parse_device
from mra_plugin.errors import UserError

from .console import console, plain
from .errors import one_clear_line
from .mra_options import given_options, takes_mra_options
from .options import DeviceOption, ModelArgument, OutArgument, parse_lengths, positive_number

if TYPE_CHECKING:
    from mra_plugin.convert.request import ConversionRequest


@takes_mra_options(without="what MODEL has, otherwise close; with --to mra paper")
def convert(
    model: ModelArgument,
    out: OutArgument,
    max_length: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Tokens that the new model reads, special tokens included.",
            show_default="as many as MODEL",
        ),
    ] = None,
    positions: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="How learned positions reach further: tile repeats them, interpolate spreads "
            "them, which needs training.",
        ),
    ] = "tile",
    attention: Annotated[
        str, typer.Option(metavar="NAME", help="Attention of the new model, see `mra info`.")
    ] = "mra",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any parameter of the attention, for example num_landmarks=64 of nystrom; may "
            "be given more than once.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="FAMILY", help="mra: write a BERT or RoBERTa as an MRA model."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Part of MODEL to leave out where the new model has no place for it, for example "
            "pooler; may be given more than once.",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text for the checks, repeated where it is too short.",
            show_default="Python's language reference",
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Tokens at which the summary sets the new model beside exact attention.",
            show_default="512, 1024, ... up to 8192",
        ),
    ] = None,
    device: DeviceOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint that OUT holds.")
    ] = False,
    **mra_options: Any,
) -> None:
    """Writes an encoder that reads longer documents, with MRA attention switched on.

    The new checkpoint keeps class, heads and data type, and loads with a plain `from_pretrained`
    after `import mra_plugin`. It is checked before it takes its place: within the old length and
    with a full budget it gives what the old one gives. The summary shows how close it is to exact
    attention.

    Without options of mra a model keeps those that its config has. One that has none gets the
    preset close, written out in its config; with `--to mra` it is the paper's scheme, with 8 blocks
    per row.

    Example: `mra convert FacebookAI/roberta-base roberta-4096 --max-length 4096`
    """
    # Only now: these import torch.
    from mra_plugin.convert.request import ConversionRequest
    from mra_plugin.convert.writing import check_target
    from mra_plugin.encoders.pretrained import check_folder
    from mra_plugin.encoders.text import read_text

    with one_clear_line():
        if to not in (None, "mra"):
            raise UserError(f"--to must be mra, got {to!r}")
        if to == "mra" and attention != "mra":
            raise UserError(f"--to mra goes with --attention mra, got {attention!r}")
        request = ConversionRequest(
            max_length=None if max_length is None else positive_number("--max-length", max_length),
            positions=_positions(positions),
            attention=attention,
            params=_params(attention, given_options(mra_options), parameter or []),
            mra_family=to == "mra",
            drop=tuple(drop or ()),
            lengths=None if lengths is None else parse_lengths(lengths),
            device=parse_device(device),
        )
        check_folder(model, "MODEL")
        content = read_text(text)
        check_target(out, model, overwrite)
        convert_and_show(model, out, request, content, overwrite)


def convert_and_show(
    model: str, out: Path, request: ConversionRequest, content: str, overwrite: bool
) -> None:
    """Converts, with a status as long as it takes and a summary at the end.

    Args:
        model: folder or hub id.
        out: folder to write to.
        request: what it is to become.
        content: text for the checks.
        overwrite: whether a checkpoint that ``out`` holds may go.

    Raises:
        UserError: it can't be done, and nothing is written.
    """
    from mra_plugin.convert.job import convert as run
    from mra_plugin.encoders.text import tokenize

    from .convert_summary import print_summary

    # Even a status that vanishes leaves an empty line where there is no terminal.
    terminal = console(stderr=True)
    status = terminal.status("loading") if terminal.is_terminal else None
    if status:
        status.start()
    try:
        found = run(
            model,
            out,
            request,
            lambda tokenizer, least: tokenize(tokenizer, content, least).cut,
            started=lambda what: status.update(plain(what)) if status else None,
            overwrite=overwrite,
        )
    finally:
        if status:
            status.stop()
    print_summary(found, request, out)


def _positions(how: str) -> Any:
    from mra_plugin.encoders.positions import METHODS

    if how not in METHODS:
        raise UserError(f"--positions must be {' or '.join(METHODS)}, got {how!r}")
    return how


def _params(attention: str, options: dict[str, Any], given: list[str]) -> dict[str, Any]:
    """Parameters of the attention, checked."""
    from mra_plugin.registry import AttentionError, build_attention

    params: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise UserError(f"--set takes NAME=VALUE, got {one!r}")
        try:
            params[name] = json.loads(value)
        except (ValueError, RecursionError):
            params[name] = value
    params |= options
    try:
        build_attention(attention, **params)
    except (AttentionError, TypeError, ValueError) as error:
        raise UserError(f"--attention: {error}") from None
    return params
