"""`mra plot`: one head's attention matrix, exact and as MRA has it, as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mra_plugin.environment import parse_device
from mra_plugin.errors import UserError

from .console import printable
from .errors import one_clear_line
from .mra_options import check_together, given_options, takes_mra_options
from .options import ModelOption, TextOption
from .plot_output import check_target, show, write

if TYPE_CHECKING:
    from mra_plugin.ops import MRAOptions
    from mra_plugin.picture.head_comparison import HeadComparison

# Less than a block of tokens has no structure to see.
_FEWEST_TOKENS = 32


@takes_mra_options(without="paper")
def plot(
    model: ModelOption = None,
    text: TextOption = None,
    length: Annotated[
        str, typer.Option(metavar="N", help="Tokens to read, special tokens included.")
    ] = "512",
    layer: Annotated[str, typer.Option(metavar="N", help="Layer, from 0.")] = "0",
    head: Annotated[str, typer.Option(metavar="N", help="Head, from 0.")] = "0",
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write: .png, .svg or .pdf.",
            show_default="a window",
        ),
    ] = None,
    **mra_options: Any,
) -> None:
    """Draws what MRA makes of one head while an encoder reads a text.

    Four parts: the exact attention matrix and MRA's, their difference, and the blocks and keys that
    MRA computes exactly. The layer is handed what flows through exact attention.

    Example: `mra plot --layer 1 --head 2 --save attention.png`
    """
    with one_clear_line():
        check_target(save)
        tokens, options = _length(length), _options(mra_options)
        layer_number, head_number = _number("--layer", layer), _number("--head", head)
        comparison, notes = _compare(model, text, tokens, layer_number, head_number, options)
        name = f"layer {layer_number}, head {head_number}"
        typer.echo(
            f"{name}: relative error {comparison.relative_error:.3f}, "
            f"cosine {comparison.cosine:.4f}, density {comparison.density:.1%}"
        )
        for note in notes:
            typer.echo(printable(note))
        if save is None:
            show(comparison, name)
        else:
            write(comparison, name, save)
            typer.echo(printable(save))


def _number(option: str, text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{option} takes a whole number from 0, got {text!r}")
    return int(text)


def _length(text: str) -> int:
    from mra_plugin.picture.head_comparison import MAX_TOKENS

    tokens = _number("--length", text)
    if not _FEWEST_TOKENS <= tokens <= MAX_TOKENS:
        raise UserError(
            f"--length must be from {_FEWEST_TOKENS} to {MAX_TOKENS}, as whole matrices are drawn, "
            f"got {tokens}"
        )
    return tokens


def _options(given: dict[str, str | None]) -> "MRAOptions":
    from mra_plugin.ops import MRAOptions
    from mra_plugin.ops.presets import expand_preset

    options = given_options(given)
    check_together(options)
    return MRAOptions(**expand_preset(options))


def _compare(
    model: str | None, text: Path | None, tokens: int, layer: int, head: int, options: "MRAOptions"
) -> tuple["HeadComparison", list[str]]:
    """Runs the encoder; returns the comparison and what a reader should know beside it."""
    import torch

    from mra_plugin.encoders.capture import attention_inputs
    from mra_plugin.encoders.positions import extend_positions
    from mra_plugin.encoders.text import read_text, tokenize
    from mra_plugin.errors import first_line
    from mra_plugin.picture.drawing import pick_layer
    from mra_plugin.picture.head_comparison import compare_head

    from .encoder import load_encoder

    content, device = read_text(text), parse_device(None)
    encoder, tokenizer = load_encoder(model, device, torch.float32)
    read = tokenize(tokenizer, content, tokens)
    learned = extend_positions(encoder, tokens)
    input_ids = torch.tensor([read.cut(tokens)], device=device)
    try:
        layers = attention_inputs(encoder, input_ids=input_ids)
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the model can't be drawn: {first_line(error)}") from None
    comparison = compare_head(pick_layer(layers, layer), head, options)
    notes = read.repetitions(tokens, learned).sentences()
    if tokens <= options.exact_up_to:
        notes.append(
            f"all is exact, as sequences of up to {options.exact_up_to} tokens are (--exact-up-to)"
        )
    return comparison, notes
