"""Documents and queries that every Python brings along, and their halves for tuning and reporting.

- "standard library": a document is the source of a public module without its docstring, and its
  query is the docstring's first line. Modules that Python 3.12 or 3.13 removed are left out.
- "language reference": a document is a topic of `pydoc` without its title, and its query is the
  title.

Which half a document belongs to follows from its name alone. So it is the same in every Python,
whatever other documents there are.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zlib import crc32

from cases import CannotRunError

Half = Literal["held out", "tuning"]

# No modules that anyone would search for, or no prose of their own.
_FOLDERS_LEFT_OUT = frozenset(
    {
        *("dist-packages", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3"),
        *("lib-dynload", "pydoc_data", "site-packages", "test", "tests", "turtledemo"),
    }
)
_REMOVED = frozenset(
    {
        *("aifc", "asynchat", "asyncore", "cgi", "cgitb", "chunk", "crypt", "imghdr", "imp"),
        *("mailcap", "nntplib", "pipes", "smtpd", "sndhdr", "sunau", "telnetlib", "uu", "xdrlib"),
    }
)
_LEAST_WORDS = 2


@dataclass(frozen=True)
class Document:
    """A text, and the one query that should find it."""

    name: str
    query: str
    text: str


def documents(collection: str, half: Half) -> list[Document]:
    """One half of a collection, by name.

    Args:
        collection: one of `COLLECTIONS`.
        half: "held out" is for reporting; whatever chooses settings looks at "tuning" alone.

    Raises:
        CannotRunError: this Python comes without it.
    """
    found = [one for one in COLLECTIONS[collection]() if half_of(one.name) == half]
    if not found:
        raise CannotRunError(f"this Python comes without the {collection}'s texts")
    return sorted(found, key=lambda one: one.name)


def half_of(name: str) -> Half:
    """The half that a document of this name belongs to."""
    return "tuning" if crc32(name.encode()) % 2 else "held out"


def _standard_library() -> Iterator[Document]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in root.rglob("*.py"):
        *parents, last = path.relative_to(root).with_suffix("").parts
        parts = parents if last == "__init__" else [*parents, last]
        name = ".".join(parts)
        private = any(part.startswith("_") or "-" in part for part in parts)
        if private or name in _REMOVED or _FOLDERS_LEFT_OUT.intersection(parents):
            continue
        if one := module_document(name, path.read_text(encoding="utf-8")):
            yield one


def module_document(name: str, source: str) -> Document | None:
    """A module as a document.

    Args:
        name: of the module.
        source: of the module.

    Returns:
        None if its docstring's first line is no query (there is none, or it has a single word), or
        nothing else is in the module.
    """
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree)
    if not docstring:
        return None
    query = docstring.splitlines()[0].strip()
    if len(query.split()) < _LEAST_WORDS:
        return None
    first = tree.body[0]
    lines = source.splitlines()
    text = "\n".join([*lines[: first.lineno - 1], *lines[first.end_lineno :]])
    return Document(name, query, text) if text.strip() else None


def _language_reference() -> Iterator[Document]:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    titles = set()
    for name in sorted(topics):
        one = topic_document(name, topics[name])
        # Some topics have two names.
        if one.query not in titles:
            titles.add(one.query)
            yield one


def topic_document(name: str, text: str) -> Document:
    """A topic of `pydoc` as a document.

    Args:
        name: of the topic.
        text: its title, a line of asterisks, and what is to be found.
    """
    title, _, rest = text.lstrip().partition("\n")
    underline, _, body = rest.partition("\n")
    return Document(name, title.strip(), body if set(underline.strip()) == {"*"} else rest)


COLLECTIONS: dict[str, Callable[[], Iterator[Document]]] = {
    "standard library": _standard_library,
    "language reference": _language_reference,
}
