"""What `mra compare` showed: a whole encoder with another attention beside its exact one."""

from collections.abc import Sequence

from mra_plugin.ops.presets import shorten_options

from . import numbers
from .results import MRA, EncoderTiming, Results
from .tables import Section, Table, of_tables


def compare(results: Results) -> Section | None:
    """Time and closeness of whole encoders by length, a table for each encoder and attention.

    Of an attention with several settings, those that are a preset are shown; `settings` has all.
    """
    together: dict[tuple[str, ...], list[EncoderTiming]] = {}
    presets = {_encoder(one) for one in results.encoders if _is_preset(one)}
    for one in results.encoders:
        if _encoder(one) not in presets or one.attention != MRA or _is_preset(one):
            together.setdefault((*_encoder(one), attention_name(one)), []).append(one)
    return of_tables("compare", "A whole encoder", _text(results), map(_table, together.values()))


def settings(results: Results) -> Section | None:
    """Settings of MRA in whole encoders, those of an encoder beside each other."""
    together: dict[tuple[str, ...], dict[str, list[EncoderTiming]]] = {}
    for one in results.encoders:
        if one.attention == MRA:
            rows = together.setdefault(_encoder(one), {})
            rows.setdefault(attention_name(one), []).append(one)
    tables = [_settings_table(rows) for rows in together.values() if len(rows) > 1]
    return of_tables("settings", "Settings in a whole encoder", _text(results), tables)


def _encoder(timing: EncoderTiming) -> tuple[str, ...]:
    """What settings can be compared in."""
    return timing.model, timing.text, timing.exact


def _is_preset(timing: EncoderTiming) -> bool:
    return shorten_options(timing.params).keys() == {"preset"}


def _text(results: Results) -> str:
    remarks = dict.fromkeys(remark for one in results.encoders for remark in one.remarks)
    return " ".join(f"{remark[:1].upper()}{remark[1:]}." for remark in remarks)


def _settings_table(rows: dict[str, list[EncoderTiming]]) -> Table:
    lengths = sorted({one.tokens for timings in rows.values() for one in timings})
    first = next(iter(rows.values()))[0]
    body = []
    for name, timings in rows.items():
        at = {one.tokens: one for one in timings}
        body.append((name.removeprefix("MRA, "), *(_cell(at.get(tokens)) for tokens in lengths)))
    return Table(
        f"{first.model} reading {first.text}: how many times as fast as with exact attention "
        f"({first.exact}), and cosine of the output to that, mean over tokens and for the mean of "
        "all tokens",
        ("MRA", *(f"{tokens} tokens" for tokens in lengths)),
        tuple(body),
    )


def _cell(timing: EncoderTiming | None) -> str:
    if timing is None:
        return numbers.error(None)
    figures = (numbers.error(one) for one in (timing.token_cosine, timing.sentence_cosine))
    return " / ".join([numbers.times(timing.speed_up), *figures])


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
