"""Words for error messages that are about names."""

import difflib
from collections.abc import Iterable


def quoted(names: Iterable[str]) -> str:
    """The names, quoted and separated by commas, in the order given."""
    return ", ".join(map(repr, names))


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that offers the known name nearest to ``name``, empty if none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[matches[0]]!r}?)" if matches else ""
