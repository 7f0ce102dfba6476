"""What searching long documents shows: speed, and what it costs in ranking."""

from collections.abc import Callable, Sequence

from . import numbers
from .results import MRA, Results, RetrievalResult
from .style import ordered
from .tables import Section, Table, of_tables

_TITLE = "Speed, and what it costs in ranking"


def retrieval(results: Results) -> Section | None:
    """Exact attention and MRA, a short table for each collection."""
    return _section("retrieval", results, lambda one: one.method.split()[0] in (one.reference, MRA))


def retrieval_all(results: Results) -> Section | None:
    """Every method, a table for each collection."""
    return _section("retrieval_all", results, lambda one: True)


def collections(found: Sequence[RetrievalResult]) -> list[str]:
    """Each collection once, in order of appearance."""
    return list(dict.fromkeys(one.collection for one in found))


def _section(
    name: str, results: Results, wanted: Callable[[RetrievalResult], bool]
) -> Section | None:
    found = [one for one in results.retrieval if wanted(one)]
    tables = (
        _table([one for one in found if one.collection == collection])
        for collection in collections(found)
    )
    return of_tables(name, _TITLE, _read_by(found), tables)


def _read_by(found: Sequence[RetrievalResult]) -> str:
    models = ", ".join(dict.fromkeys(one.model for one in found))
    return (
        f"{models} searches for the one document that each query belongs to. It reads documents, "
        "cut to so many tokens, with the method's attention, and queries with exact attention. "
        "Speed-up: times as fast as exact attention in reading a batch of documents, median (range "
        "over the rounds). MRR: mean reciprocal rank of the right document. First hits: right "
        "documents in first place. Overlap@10: share of the ten nearest documents that are among "
        "exact attention's ten. Documents that are held out had no part in choosing settings."
    )


def _table(found: Sequence[RetrievalResult]) -> Table:
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
