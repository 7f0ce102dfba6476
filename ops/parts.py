"""How a call is cut into parts that are worked on together."""

from __future__ import annotations

from collections.abc import Iterator


def parts(batch: int, heads: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Batch rows and heads to take together: whole rows, or heads of a single row.

    Args:
        batch: B.
        heads: H.
        at_once: heads, of whatever rows, that a part may hold; at least 1 is taken.
    """
    at_once = max(at_once, 1)
    if at_once >= heads:
        step = at_once // max(heads, 1)
        for row in range(0, batch, step):
            yield slice(row, row + step), slice(None)
        return
    for row in range(batch):
        for head in range(0, heads, at_once):
            yield slice(row, row + 1), slice(head, head + at_once)
