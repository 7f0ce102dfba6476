"""Documents, their packing, and their masks."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers.letter_data import letter_tokenizer, save_lines

from mra_plugin.encoders.framing import Frame, frame_of
from mra_plugin.errors import UserError
from mra_plugin.training.masking import NumberedMasking
from mra_plugin.training.packing import PackedStream, windows
from mra_plugin.training.text_data import documents, find_files

FRAME = Frame((2,), (3,))


def test_documents_go_on_in_the_next_example() -> None:
    examples = list(windows([[10, 11, 12], [13, 14, 15, 16]], FRAME, 6))
    assert examples == [[2, 10, 11, 12, 3, 3], [2, 13, 14, 15, 16, 3]]
    examples = list(windows([[10, 11], [12, 13, 14, 15, 16]], FRAME, 6))
    assert examples == [[2, 10, 11, 3, 12, 3], [2, 13, 14, 15, 16, 3]]


def test_the_rest_is_an_example_of_its_own() -> None:
    assert list(windows([[10] * 9], FRAME, 6))[-1] == [2, 10, 3]


def test_every_token_is_kept() -> None:
    content = [list(range(10, 10 + size)) for size in (1, 7, 40, 3, 4, 5, 6)]
    packed = [token for one in windows(content, FRAME, 7) for token in one if token > 9]
    assert packed == [token for one in content for token in one]


def test_a_stream_has_every_document_in_each_pass(texts: Path) -> None:
    tokenizer = letter_tokenizer()
    files = find_files("data", [str(texts)])
    stream = PackedStream(documents(files), tokenizer, 32, seed=1)
    tokens = sum(len(Path(file).read_text().split()) for file in files)
    packed = (token for row in stream for token in row["input_ids"] if token > 4)
    first, second = (list(itertools.islice(packed, tokens)) for _ in range(2))
    assert sorted(first) == sorted(second)
    assert first != second, "each pass has an order of its own"
    rows = list(itertools.islice(stream, 20))
    assert rows == list(itertools.islice(stream, 20)), "the order follows from the seed"
    assert {len(row["input_ids"]) for row in rows} == {32}
    assert frame_of(tokenizer) == FRAME


def test_held_out_documents_are_the_others(texts: Path) -> None:
    files = find_files("data", [str(texts)])
    sets = [{row["text"] for row in documents(files, 0.4, held_out)} for held_out in (True, False)]
    assert sets[0]
    assert sets[1]
    assert not sets[0] & sets[1]
    assert sets[0] | sets[1] == {Path(file).read_text() for file in files}


def test_json_lines_hold_a_document_each(tmp_path: Path) -> None:
    whole = r'{"text": "c \ud83d\ude00"}'
    file = save_lines(tmp_path / "a.jsonl", [{"text": "a b"}, "", whole])
    assert [row["text"] for row in documents([str(file)])] == ["a b", "c \N{GRINNING FACE}"]


def test_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md", "in/d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")

    def names(*patterns: str) -> list[str]:
        found = find_files("data", [str(tmp_path / pattern) for pattern in patterns])
        return [Path(file).relative_to(tmp_path).as_posix() for file in found]

    assert names("") == ["a.txt", "b.txt", "in/d.jsonl"]
    assert names("*.md", "a.txt", "c.md") == ["c.md", "a.txt"]
    with pytest.raises(UserError, match=r"data: no text files at .*no\*"):
        names("no*")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", }', r"a.jsonl:2:15: "),
        ('["text"]', r"a.jsonl:2:1: must be a JSON object"),
        ('{"text": 3}', r"a.jsonl:2: field 'text' must be a string, got 3"),
        ("{}", r"a.jsonl:2: field 'text' must be a string, got None"),
        (r'{"text": "a \ud83d"}', r"a.jsonl:2: has half of a character"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = save_lines(tmp_path / "a.jsonl", [{"text": "a"}, line])
    with pytest.raises(UserError, match=message):
        list(documents([str(file)]))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a text file in UTF-8"):
        list(documents([str(tmp_path / "a.txt")]))


def test_masks_follow_from_the_examples_number() -> None:
    masking = NumberedMasking(letter_tokenizer(), mlm_probability=0.5, seed=3)
    rows = [{"input_ids": [2, *range(5, 25), 3], "number": number} for number in (7, 8)]
    together, alone = masking(rows), masking(rows[1:])
    assert together["input_ids"][1].equal(alone["input_ids"][0])
    assert together["labels"][1].equal(alone["labels"][0])
    assert not together["labels"][0].equal(together["labels"][1])
    labels = together["labels"][0]
    assert labels[[0, -1]].tolist() == [-100, -100], "special tokens are never masked"
    hidden = labels != -100
    assert 3 < hidden.sum() < 18
    assert labels[hidden].equal(torch.tensor(rows[0]["input_ids"])[hidden])


def test_documents_without_tokens_end_the_run(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "  "}))
    stream = PackedStream(documents([str(file)]), letter_tokenizer(), 8, seed=0)
    with pytest.raises(UserError, match="finds no tokens"):
        next(iter(stream))
