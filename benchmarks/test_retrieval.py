"""Searching long documents: what approximation saves in time, and what it costs in ranking.

`retrieval` says how documents and queries are read, `documents` what they are. All is reported on
the held-out half of the documents.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from cases import Case
from documents import COLLECTIONS
from interleaved import Step, compare
from pytest_benchmark.fixture import BenchmarkFixture
from ranking import first_hits, mean_reciprocal_rank, overlap, similarities
from real_inputs import MODEL
from retrieval import EXACT, METHODS, encoder_with, exact_search, reading, vectors
from settings import Settings, settings_of

LENGTHS = (512, 1024, 2048, 4096)
QUICK = [("standard library", 2048, method) for method in (EXACT, "mra", "mra close")]
HALF = "held out"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = [
        (collection, tokens, method)
        for collection in COLLECTIONS
        for tokens in LENGTHS
        for method in (EXACT, *METHODS)
    ]
    cases = [
        (collection, Case("retrieval", method, "forward", tokens))
        for collection, tokens, method in (full if settings_of(metafunc.config).full else QUICK)
    ]
    ids = [f"{case.id}-{collection.replace(' ', '-')}" for collection, case in cases]
    metafunc.parametrize(("collection", "case"), cases, ids=ids)


def test_retrieval(
    benchmark: BenchmarkFixture,
    runs_or_is_listed: Callable[[Case], AbstractContextManager[None]],
    settings: Settings,
    collection: str,
    case: Case,
) -> None:
    benchmark.group = f"{case.group}, {collection}"
    with runs_or_is_listed(case):
        search = exact_search(collection, HALF, case.tokens, settings.device, settings.dtype)
        exact = similarities(search.queries, search.vectors)
        if case.method == EXACT:
            found, step = search.vectors, search.step
        else:
            model = encoder_with(case.method, settings.device, settings.dtype)
            found = vectors(model, search.batches)
            step = Step(reading(model, search.batches[0]), settings.device)
        times = compare(benchmark, step, search.step, settings.seconds_per_case)
    own = similarities(search.queries, found)
    benchmark.extra_info.update(
        kind=case.kind,
        method=case.method,
        params=METHODS[case.method][1] if case.method != EXACT else {},
        tokens=case.tokens,
        direction=case.direction,
        shape=list(search.batches[0].shape),
        reference=EXACT,
        model=MODEL,
        collection=collection,
        half=HALF,
        documents=len(found),
        full_documents=search.full,
        mrr=mean_reciprocal_rank(own),
        reference_mrr=mean_reciprocal_rank(exact),
        first_hits=first_hits(own),
        overlap=overlap(exact, own),
        vector_cosine=torch.cosine_similarity(search.vectors, found).mean().item(),
        **settings.labels,
        **times,
    )
