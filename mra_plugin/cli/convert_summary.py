"""What `mra convert` says at the end."""

from pathlib import Path

from mra_plugin.convert.request import ConversionRequest, Converted
from mra_plugin.ops.presets import spell_options

from .console import console, printable, table_of_facts, table_of_figures


def print_summary(found: Converted, request: ConversionRequest, out: Path) -> None:
    """Prints what was written, what the check says, and closeness to exact attention."""
    params = spell_options(found.params)
    facts = table_of_facts()
    size = f"{found.weight_bytes / 1e6:.1f} MB"
    facts.add_row("written", f"{printable(out)} ({found.architecture}, {size})")
    facts.add_row("tokens", _tokens(found, request))
    facts.add_row("attention", f"{request.attention}{f' ({params})' if params else ''}")
    if limit := found.params.get("exact_up_to", 0):
        facts.add_row("", f"exact up to {limit} tokens")
    facts.add_row("data type", str(found.dtype).removeprefix("torch."))
    if found.left_out:
        facts.add_row("left out", ", ".join(found.left_out))
    if found.modules:
        facts.add_row("modules", f"{', '.join(found.modules)} ({found.sentence_transformer})")
    facts.add_row("check", _check(found, request))
    if found.sentence_transformer:
        what = "scores" if found.sentence_transformer == "CrossEncoder" else "embeddings"
        facts.add_row(what, _seen(found, request))
    table = table_of_figures("beside exact attention")
    for header in ("tokens", "token cosine", "sentence cosine"):
        table.add_column(header, justify="right")
    for row in found.closeness:
        table.add_row(str(row.tokens), f"{row.token_cosine:.4f}", f"{row.sentence_cosine:.4f}")
    console().print(facts, "", table)


def _tokens(found: Converted, request: ConversionRequest) -> str:
    if found.after == found.before:
        return f"{found.after}, as before"
    kind = f"{found.positions} positions"
    if found.positions == "learned":
        kind += {"tile": ", repeated", "interpolate": ", interpolated"}[request.positions]
    return f"{found.after}, from {found.before}; {kind}"


def _check(found: Converted, request: ConversionRequest) -> str:
    return (
        f"{_budget(request)} the new model equals {_old(found, request)} "
        f"{_up_to(found.difference)}, at {found.checked} tokens"
    )


def _seen(found: Converted, request: ConversionRequest) -> str:
    if found.seen_difference is None:
        return (
            f"not compared, since no sentence-transformers with {found.sentence_transformer} is "
            "installed: the encoder alone was checked"
        )
    return (
        f"{_budget(request)} equal to {_old(found, request)} {_up_to(found.seen_difference)}, for "
        "short texts in sentence-transformers"
    )


def _budget(request: ConversionRequest) -> str:
    return "with a full budget" if request.attention == "mra" else "with exact attention"


def _old(found: Converted, request: ConversionRequest) -> str:
    longer = found.positions == "learned" and found.after > found.before
    if request.positions == "interpolate" and longer:
        return "the old one with interpolated positions"
    return "the old"


def _up_to(difference: float) -> str:
    return f"up to {difference:.0e}" if difference else "to the last bit"
