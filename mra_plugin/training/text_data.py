"""Documents from text files and JSON lines, one after another."""

from __future__ import annotations

import glob
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import datasets  # type: ignore[import-untyped]

from mra_plugin.errors import UserError

JSON_LINES = (".jsonl", ".json", ".ndjson")
# A stream of rows {"text": str}.
Documents: TypeAlias = datasets.IterableDataset
# What a folder is searched for; other names can be given as files or globs.
IN_FOLDERS = (".txt", *JSON_LINES)
# JSON can spell half of a character, as of an emoji that was cut in two: a surrogate by itself.
_ESCAPED, _HALF = re.compile(r"\\u[dD]"), re.compile("[\ud800-\udfff]")


def find_files(option: str, patterns: Sequence[str]) -> list[str]:
    """The files that paths, folders and globs stand for, each once, sorted within each pattern.

    Args:
        option: whose value the patterns are, for messages.
        patterns: files, folders (their ``.txt`` and JSON lines files at any depth) or globs.

    Raises:
        UserError: a pattern stands for no file.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        if Path(pattern).is_dir():
            paths = sorted(p for p in Path(pattern).rglob("*") if p.suffix in IN_FOLDERS)
            found = [str(path) for path in paths if path.is_file()]
        elif Path(pattern).exists():
            found = [pattern]
        else:
            found = sorted(p for p in glob.glob(pattern, recursive=True) if Path(p).is_file())
        if not found:
            raise UserError(f"{option}: no text files at {pattern!r}")
        files.update(dict.fromkeys(found))
    return list(files)


def read_json_lines(file: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and content of each line of a JSON lines file that is not empty.

    Raises:
        UserError: a line is no JSON object; with file, line and column.
    """
    with _open(file) as lines:
        for number, line in enumerate(_decoded(file, lines), 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{file}:{number}:{error.colno}: {error.msg}") from None
            except RecursionError:
                raise UserError(f"{file}:{number}: is nested too deeply") from None
            except ValueError:
                raise UserError(f"{file}:{number}: has a number of too many digits") from None
            if not isinstance(content, dict):
                raise UserError(f"{file}:{number}:1: must be a JSON object, got {line[:40]!r}")
            if _ESCAPED.search(line) and _HALF.search(json.dumps(content, ensure_ascii=False)):
                raise UserError(f"{file}:{number}: has half of a character, such as \\ud83d")
            yield number, content


def documents(files: Sequence[str], share: float = 0.0, held_out: bool = False) -> Documents:
    """A stream of documents, read when it is iterated.

    A line of a JSON lines file is a document, its ``text``. Any other file is one document as a
    whole. Which documents are held out depends on their text alone, so the order doesn't matter
    and copies stay together.

    Args:
        files: what `find_files` found.
        share: share of the documents that is held out.
        held_out: whether the held-out documents are wanted, or the others.

    Returns:
        Rows {"text": str}; iterating raises `UserError` at what can't be read.
    """
    return datasets.IterableDataset.from_generator(
        _rows, gen_kwargs={"files": list(files), "share": share, "held_out": held_out}
    )


def is_held_out(content: str, share: float) -> bool:
    """Whether what has this content is of the share, from 0 to 1, that is held out."""
    return zlib.crc32(content.encode()) / 2**32 < share


def _rows(files: list[str], share: float, held_out: bool) -> Iterator[dict[str, str]]:
    for file in files:
        for text in _texts(file):
            if is_held_out(text, share) == held_out:
                yield {"text": text}


def _texts(file: str) -> Iterator[str]:
    if not file.endswith(JSON_LINES):
        with _open(file) as whole:
            yield "".join(_decoded(file, whole))
        return
    for number, line in read_json_lines(file):
        if not isinstance(line.get("text"), str):
            raise UserError(
                f"{file}:{number}: field 'text' must be a string, got {line.get('text')!r}"
            )
        yield line["text"]


def _open(file: str) -> Any:
    try:
        return open(file, encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't read {file!r}: {error.strerror}") from None


def _decoded(file: str, lines: Any) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError:
        raise UserError(f"{file!r} is not a text file in UTF-8") from None
