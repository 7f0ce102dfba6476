"""Sections as Markdown."""

import re
from collections.abc import Iterable

from .results import Results
from .sections import section
from .tables import Section, Table


def results_markdown(found: Iterable[Results], names: Iterable[str]) -> str:
    """The sections called ``names`` of all results, each under its heading."""
    parts = ["# Results"]
    for results in found:
        parts.append(f"## {escaped(results.title)}")
        for name in names:
            if shown := section(name, results):
                parts += [f"### {escaped(shown.title)}", section_markdown(shown)]
        parts += [escaped(f"{note}.") for note in results.notes]
    return "\n\n".join(parts) + "\n"


def section_markdown(shown: Section) -> str:
    """A section's text and tables, without its heading."""
    parts = [escaped(shown.text)] if shown.text else []
    for table in shown.tables:
        parts += [escaped(f"{table.caption}:"), _table(table)]
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\|<>*`\[\]])", r"\\\1", " ".join(text.split()))


def _table(table: Table) -> str:
    columns = range(len(table.header))
    rule = ("---" if column in table.words else "---:" for column in columns)
    rows = [map(escaped, table.header), rule, *(map(escaped, row) for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
