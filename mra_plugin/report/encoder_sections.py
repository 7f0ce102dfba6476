"""What `mra compare` showed: a whole encoder with another attention beside its exact one."""

from collections.abc import Sequence

from mra_plugin.ops.presets import shorten_options

from . import numbers
from .results import MRA, EncoderTiming, Results
from .tables import Section, Table, of_tables


def compare(results: Results) -> Section | None:
    """Time and closeness of whole encoders by length, a table for each encoder and attention."""
    together: dict[tuple[str, ...], list[EncoderTiming]] = {}
    for one in results.encoders:
        key = (one.model, one.text, one.exact, attention_name(one))
        together.setdefault(key, []).append(one)
    remarks = dict.fromkeys(remark for one in results.encoders for remark in one.remarks)
    text = " ".join(f"{remark[:1].upper()}{remark[1:]}." for remark in remarks)
    return of_tables("compare", "A whole encoder", text, map(_table, together.values()))


def attention_name(timing: EncoderTiming) -> str:
    """The attention with its parameters: "MRA, 8 blocks per row" or "MRA, preset close"."""
    spelled = {"block_per_row": "{} blocks per row", "preset": "preset {}"}
    params = (
        spelled.get(name, f"{name}={{}}").format(value)
        for name, value in shorten_options(timing.params).items()
    )
    return ", ".join(["MRA" if timing.attention == MRA else timing.attention, *params])


def _table(timings: Sequence[EncoderTiming]) -> Table:
    first = timings[0]
    return Table(
        f"{first.model} reading {first.text}: median time of a forward pass, and cosine of the "
        f"output to that with exact attention ({first.exact}), mean over tokens and for the mean "
        "of all tokens (sentence)",
        (
            "tokens",
            "exact",
            attention_name(first),
            "speed-up",
            "token cosine",
            "sentence cosine",
        ),
        tuple(
            (
                str(one.tokens),
                numbers.seconds(one.exact_seconds),
                numbers.seconds(one.seconds),
                numbers.times(one.speed_up),
                numbers.error(one.token_cosine),
                numbers.error(one.sentence_cosine),
            )
            for one in sorted(timings, key=lambda one: one.tokens)
        ),
        frozenset(),
    )
