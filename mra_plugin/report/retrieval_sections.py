"""What searching long documents shows: speed, and what it costs in ranking."""

from collections.abc import Sequence

from . import numbers
from .results import MRA, Results, RetrievalResult
from .style import ordered
from .tables import Section, Table, of_tables

_TITLE = "Speed, and what it costs in ranking"
# What the short table says of each method.
_SHORT = ("speed-up", "MRR", "overlap@10")


def retrieval(results: Results) -> Section | None:
    """MRA beside exact attention, one row for each length; None if MRA was not measured."""
    found = [one for one in results.retrieval if one.method.split()[0] == MRA]
    tables = (_beside_exact(rows) for rows in _by_collection(found))
    return of_tables("retrieval", _TITLE, _read_by(found), tables)


def retrieval_all(results: Results) -> Section | None:
    """Every method, one row for each method and length."""
    tables = (_in_full(rows) for rows in _by_collection(results.retrieval))
    return of_tables("retrieval_all", _TITLE, _read_by(results.retrieval), tables)


def collections(found: Sequence[RetrievalResult]) -> list[str]:
    """Each collection once, in order of appearance."""
    return list(dict.fromkeys(one.collection for one in found))


def _by_collection(found: Sequence[RetrievalResult]) -> list[list[RetrievalResult]]:
    return [[one for one in found if one.collection == name] for name in collections(found)]


def _read_by(found: Sequence[RetrievalResult]) -> str:
    models = ", ".join(dict.fromkeys(one.model for one in found))
    return (
        f"{models} searches for the one document that each query belongs to. It reads documents, "
        "cut to so many tokens, with the method's attention, and queries with exact attention. "
        "Speed-up: times as fast as exact attention in reading a batch of documents, median (range "
        "over the rounds, where it is given). MRR: mean reciprocal rank of the right document. "
        "Overlap@10: share of the ten nearest documents that are among exact attention's ten. "
        "Documents that are held out had no part in choosing settings."
    )


def _beside_exact(found: Sequence[RetrievalResult]) -> Table:
    methods = ordered(one.method for one in found)
    cells = {(one.tokens, one.method): one for one in found}
    exact = {one.tokens: one.reference_mrr for one in found}
    return Table(
        _what(found),
        (
            *("tokens", "MRR, exact"),
            *(f"{method}: {what}" for method in methods for what in _SHORT),
        ),
        tuple(
            (
                str(tokens),
                numbers.error(exact[tokens]),
                *(cell for method in methods for cell in _short_cells(cells.get((tokens, method)))),
            )
            for tokens in sorted(exact)
        ),
        frozenset(),
    )


def _short_cells(one: RetrievalResult | None) -> tuple[str, ...]:
    if one is None:
        return (numbers.NOTHING,) * len(_SHORT)
    return (
        numbers.times(one.speed_up.median),
        numbers.error(one.mrr),
        numbers.share(one.overlap),
    )


def _in_full(found: Sequence[RetrievalResult]) -> Table:
    methods = ordered(one.method for one in found)
    rows = sorted(found, key=lambda one: (one.tokens, methods.index(one.method)))
    return Table(
        _what(rows),
        (
            *("tokens", "method", "speed-up", "MRR", "MRR beside exact"),
            *("first hits", "overlap@10", "cosine of vectors"),
        ),
        tuple(
            (
                str(one.tokens),
                one.method,
                numbers.ratio_with_range(one.speed_up),
                numbers.error(one.mrr),
                numbers.share(one.kept),
                f"{one.first_hits} of {one.documents}",
                numbers.share(one.overlap),
                numbers.error(one.vector_cosine),
            )
            for one in rows
        ),
        frozenset({1}),
    )


def _what(found: Sequence[RetrievalResult]) -> str:
    """The documents in words: "Standard library, 51 documents (held out)"."""
    collection, half = found[0].collection, found[0].half
    counts = " or ".join(map(str, sorted({one.documents for one in found})))
    what = f"{collection.capitalize()}, {counts} documents ({half})"
    if all(one.full_documents == one.documents for one in found):
        return what
    full = {one.tokens: one.full_documents for one in found}
    reach = ", ".join(f"{full[tokens]} at {tokens} tokens" for tokens in sorted(full))
    return f"{what}, of which so many are long enough to be cut and others are whole: {reach}"
