"""What the results say, in a few sentences made from the figures."""

from . import numbers
from .closeness_sections import at_one_budget
from .encoder_sections import attention_name
from .growth import growth
from .results import DIRECTIONS, MRA, Results, RetrievalResult, Timing
from .retrieval_sections import collections
from .style import ordered
from .timing_sections import mra_methods


def statements(results: Results) -> list[str]:
    """Sentences on ranking, speed, memory, growth, layer, closeness and encoder, if measured."""
    found = [
        *(_ranking(one, results.retrieval) for one in collections(results.retrieval)),
        *_speed(results),
        _growth(results),
        _layer(results),
        _closeness(results),
        _encoder(results),
    ]
    return [sentence for sentence in found if sentence]


def _ranking(collection: str, found: tuple[RetrievalResult, ...]) -> str | None:
    own = [one for one in found if one.collection == collection and one.method.split()[0] == MRA]
    if not own:
        return None
    tokens = max(one.tokens for one in own)
    here = {one.method: one for one in own if one.tokens == tokens}
    parts = [
        f"with {name} {numbers.ratio(here[name].speed_up.median)} times as fast, mean reciprocal "
        f"rank {numbers.error(here[name].mrr)}"
        for name in ordered(here)
    ]
    exact = next(iter(here.values()))
    return (
        f"Searching the {collection}, {exact.documents} documents of up to {tokens} tokens: "
        f"documents are read {', '.join(parts)}; {exact.reference} attention has "
        f"{numbers.error(exact.reference_mrr)}."
    )


def _speed(results: Results) -> list[str]:
    sentences = []
    for direction in DIRECTIONS:
        own = _of_mra(results.attention, direction)
        if not own:
            continue
        shortest, longest = own[0], own[-1]
        sentence = (
            f"{direction.capitalize()} at {longest.tokens} tokens, attention alone: "
            f"{longest.method} is {numbers.ratio_with_range(longest.speed_up)} times as fast as "
            f"{longest.reference}"
        )
        if longest.peak_bytes and longest.reference_peak_bytes:
            memory = numbers.ratio(longest.peak_bytes / longest.reference_peak_bytes)
            sentence += f", with {memory} times its memory"
        if shortest is not longest:
            least = numbers.ratio(shortest.speed_up.median)
            sentence += f"; at {shortest.tokens} tokens, {least} times as fast"
            if shortest.reference != longest.reference:
                sentence += f" as {shortest.reference}"
        sentences.append(f"{sentence}.")
    return sentences


def _growth(results: Results) -> str | None:
    own = _of_mra(results.attention, "forward")
    if not own:
        return None
    fits = [
        growth(results.attention, name, "forward") for name in (own[-1].method, own[-1].reference)
    ]
    powers = [
        f"{numbers.exponent(fit.time)} with {fit.method} "
        f"({fit.tokens[0]} to {fit.tokens[-1]} tokens)"
        for fit in fits
        if fit
    ]
    if len(powers) < len(fits):
        return None
    return f"Forward time grows with the length to the power of {' and of '.join(powers)}."


def _layer(results: Results) -> str | None:
    own = _of_mra(results.layer, "forward")
    if not own:
        return None
    longest = own[-1]
    others = [
        f"{timing.method} {numbers.ratio(timing.speed_up.median)}"
        for timing in results.layer
        if (timing.tokens, timing.direction) == (longest.tokens, "forward")
        and timing.method not in (longest.method, longest.reference)
    ]
    beside = f" ({', '.join(others)})" if others else ""
    return (
        f"A whole encoder layer, forward at {longest.tokens} tokens: "
        f"{numbers.ratio_with_range(longest.speed_up)} times as fast as {longest.reference} with "
        f"{longest.method}{beside}."
    )


def _closeness(results: Results) -> str | None:
    rows = at_one_budget(results.closeness)
    longest = max((one.tokens for one in rows), default=0)
    here = {one.method: one for one in rows if one.tokens == longest}
    mra = here.get(MRA)
    if mra is None or mra.relative_error is None:
        return None
    sentence = (
        f"{mra.model} reading {longest} tokens, {mra.budget} {mra.budget_unit}: MRA computes "
        f"{numbers.share(mra.density)} of the pairs exactly and comes within a relative error of "
        f"{numbers.error(mra.relative_error)}"
    )
    beside = {"window": "a window of as many blocks", "oracle": "nearly the best choice of blocks"}
    others = [
        f"{words} {numbers.error(here[name].relative_error)}"
        for name, words in beside.items()
        if name in here and here[name].budget == mra.budget
    ]
    comparison = f" ({', '.join(others)})" if others else ""
    return f"{sentence} of exact attention's output{comparison}."


def _encoder(results: Results) -> str | None:
    own = [one for one in results.encoders if one.attention == MRA]
    if not own:
        return None
    longest = max(own, key=lambda one: one.tokens)
    return (
        f"{longest.model} as a whole, forward at {longest.tokens} tokens: "
        f"{numbers.ratio(longest.speed_up)} times as fast with {attention_name(longest)}, as with "
        f"exact attention ({longest.exact}); cosine of the output "
        f"{numbers.error(longest.token_cosine)} by token."
    )


def _of_mra(timings: tuple[Timing, ...], direction: str) -> list[Timing]:
    method = next(iter(mra_methods(timings)), None)
    own = [one for one in timings if (one.method, one.direction) == (method, direction)]
    return sorted(own, key=lambda timing: timing.tokens)
