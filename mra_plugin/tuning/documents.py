"""A text as documents: one half to search with, and one that is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mra_plugin.encoders.framing import Frame, frame_of
from mra_plugin.encoders.text import content_ids
from mra_plugin.errors import UserError

from .result import Metric

# Documents in each half, at least and at most.
_DOCUMENTS: dict[Metric, tuple[int, int]] = {
    "sentence": (1, 3),
    "token": (1, 3),
    "ranking": (8, 12),  # fewer have no neighbours to speak of
}


@dataclass(frozen=True)
class Documents:
    """Documents of the greatest length; at a shorter one their beginnings are read.

    Attributes:
        frame: the special tokens around each.
        search: token ids of those that settings are chosen with.
        held_out: of those that are reported on. The two halves share no token.
    """

    frame: Frame
    search: tuple[Sequence[int], ...]
    held_out: tuple[Sequence[int], ...]

    def cut(self, document: Sequence[int], tokens: int) -> list[int]:
        """A document of so many tokens, special tokens included."""
        return [*self.frame.before, *document[: tokens - self.frame.size], *self.frame.after]


def documents_of(
    tokenizer: Any, texts: Sequence[str], lengths: Sequence[int], metric: Metric
) -> Documents:
    """Cuts texts, one after the other, into documents, and takes some from all over.

    Args:
        tokenizer: of the model.
        texts: as they follow each other.
        lengths: tokens, ascending, special tokens included.
        metric: says how many documents there have to be.

    Raises:
        UserError: there is too little text, or a length has no room for any.
    """
    frame = frame_of(tokenizer)
    if lengths[0] <= frame.size:
        raise UserError(
            f"lengths must be more than the {frame.size} special tokens that the model puts "
            f"around any text, got {lengths[0]}"
        )
    content = [token for text in texts for token in content_ids(tokenizer, text)]
    room = lengths[-1] - frame.size
    there = len(content) // room
    least, most = _DOCUMENTS[metric]
    if there < 2 * least:
        raise UserError(
            f"there is too little text: the metric {metric} needs {2 * least} documents of "
            f"{lengths[-1]} tokens, half of them held out, which are {2 * least * room} tokens of "
            f"text, and there are {len(content)}; give more text, or shorter lengths"
        )
    each = min(most, there // 2)
    starts = [number * there // (2 * each) * room for number in range(2 * each)]
    documents = [content[start : start + room] for start in starts]
    return Documents(frame, tuple(documents[::2]), tuple(documents[1::2]))
