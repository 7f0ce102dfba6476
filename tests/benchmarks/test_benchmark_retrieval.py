"""Documents, their halves, and ranking by numbers that can be checked by hand."""

import inspect
import json.encoder
import sys
import textwrap

import pytest
import retrieval
import torch
from cases import CannotRunError
from documents import COLLECTIONS, Document, documents, half_of, module_document, topic_document
from ranking import first_hits, mean_reciprocal_rank, overlap, ranks, similarities
from retrieval import batches_of, vectors

from mra_plugin.encoders.text import Tokens

CPU = torch.device("cpu")
# Queries by documents. The right ones stand in places 1, 2 and 3.
FOUND = torch.tensor([[0.9, 0.1, 0.2], [0.7, 0.5, 0.1], [0.4, 0.3, 0.2]])


def test_ranks_by_hand() -> None:
    assert ranks(FOUND).tolist() == [1, 2, 3]
    assert mean_reciprocal_rank(FOUND) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert first_hits(FOUND) == 1


def test_what_is_as_near_or_no_number_stands_in_front() -> None:
    nan = float("nan")
    assert ranks(torch.tensor([[0.5, 0.5, 0.1]])).tolist() == [2]
    assert ranks(torch.tensor([[0.5, nan, 0.1]])).tolist() == [2]
    assert ranks(torch.tensor([[nan, 0.3, 0.1]])).tolist() == [3]


def test_overlap_by_hand() -> None:
    exact = torch.arange(20.0, 0, -1).repeat(2, 1)  # documents 0 to 9 are the nearest
    other = exact.clone()
    assert overlap(exact, other) == 1
    other[0, [10, 11, 12]] = 30.0  # three others in front: 0 to 6 stay
    assert overlap(exact, other) == pytest.approx((7 + 10) / 20)
    other[1] = -other[1]  # 10 to 19
    assert overlap(exact, other) == pytest.approx(7 / 20)
    # Of fewer documents all are the nearest, in any order.
    assert overlap(FOUND, -FOUND) == 1


def test_similarities_are_cosines() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(
        similarities(vectors, vectors), torch.tensor([[1.0, 0.6], [0.6, 1.0]]), check_dtype=False
    )


def test_a_module_loses_its_docstring_alone() -> None:
    source = textwrap.dedent(
        '''\
        # a comment
        """Read and write files.

        More of it.
        """
        import os

        def read():
            """Reads."""
        '''
    )
    one = module_document("files", source)
    assert one is not None
    assert one.query == "Read and write files."
    assert one.text == '# a comment\nimport os\n\ndef read():\n    """Reads."""'


@pytest.mark.parametrize(
    "source", ["import os\n", '"""ast\n\nThe module.\n"""\nx = 1\n', '"""Two words."""\n']
)
def test_a_module_without_a_query_or_a_text_is_no_document(source: str) -> None:
    assert module_document("name", source) is None


def test_a_topic_loses_its_title() -> None:
    one = topic_document("pass", 'The "pass" statement\n********************\n\n   pass_stmt\n')
    assert (one.query, one.text) == ('The "pass" statement', "\n   pass_stmt\n")
    assert topic_document("plain", "Title\nText").text == "Text"


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_halves_share_nothing_and_are_of_a_size(collection: str) -> None:
    held_out, tuning = documents(collection, "held out"), documents(collection, "tuning")
    assert not {one.name for one in held_out} & {one.name for one in tuning}
    assert 0.7 < len(held_out) / len(tuning) < 1.4
    for half in (held_out, tuning):
        names = [one.name for one in half]
        assert names == sorted(set(names))
        for one in half:
            assert one.query
            assert one.text.strip()


def test_the_half_follows_from_the_name_alone() -> None:
    # Figures that were reported on one half must not come to be tuned on it.
    assert {half_of(name) for name in ("argparse", "typing", "assert")} == {"tuning"}
    assert {half_of(name) for name in ("calendar", "zipfile", "compound")} == {"held out"}


def test_the_standard_library_is_that_of_this_python() -> None:
    half = half_of("json.encoder")
    (one,) = (one for one in documents("standard library", half) if one.name == "json.encoder")
    assert one.query == "Implementation of JSONEncoder"
    assert one.text.strip() in inspect.getsource(json.encoder)
    names = {one.name.partition(".")[0] for one in documents("standard library", "tuning")}
    assert not names & {"test", "idlelib", "encodings", "asyncore"}


def test_a_collection_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(CannotRunError, match="without the language reference's texts"):
        documents("language reference", "held out")


def test_queries_and_documents_are_read_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"Cooking rice": "Boil it in water. " * 200, "Flying a kite": "Wind lifts it."}
    made = [Document(query, query, text) for query, text in texts.items()]
    monkeypatch.setattr(retrieval, "documents", lambda collection, half: made[::-1])
    search = retrieval.exact_search.__wrapped__(
        "language reference", "held out", 512, CPU, torch.float32
    )
    # The long one first, cut; queries in the order of documents.
    assert [tuple(ids.shape) for ids in search.batches] == [(1, 512), (1, 6)]
    assert search.full == 1
    assert ranks(similarities(search.queries, search.vectors)).tolist() == [1, 1]
    torch.testing.assert_close(search.vectors.norm(dim=-1), torch.ones(2))
    for method in retrieval.METHODS:
        model = retrieval.encoder_with(method, CPU, torch.float32)
        found = torch.cosine_similarity(search.vectors, vectors(model, search.batches))
        # Few tokens are exact with every method; "close" may leave more of them exact.
        assert found[1] == pytest.approx(1, abs=1e-5)
        assert found[0] < 0.9999 or method == "mra close"


def test_only_texts_of_one_length_are_read_together() -> None:
    long, short = Tokens([1], [5] * 3000, [2]), Tokens([1], [6] * 100, [2])
    found = batches_of([long, long, long, short], 2048, CPU)
    assert [tuple(ids.shape) for ids in found] == [(2, 2048), (1, 2048), (1, 102)]
    for ids in found:
        assert (ids[:, 0] == 1).all()
        assert (ids[:, -1] == 2).all()
