"""Documents packed into examples of one length."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import IterableDataset

from mra_plugin.encoders.framing import Frame, frame_of
from mra_plugin.errors import UserError

from .text_data import Documents

# Documents that are shuffled among each other, and that are tokenized at a time.
SHUFFLED, TOKENIZED = 1000, 16


def tokenized(documents: Documents, tokenizer: Any) -> Iterator[list[int]]:
    """The token ids of each document, without special tokens; documents without any are left out.

    Args:
        documents: rows {"text": str}.
        tokenizer: of the model.
    """

    def encode(rows: dict[str, list[str]]) -> dict[str, Any]:
        # verbose=False: that a document is longer than an example is no news here.
        ids = tokenizer(rows["text"], add_special_tokens=False, verbose=False)["input_ids"]
        return {"input_ids": ids}

    rows = documents.map(encode, batched=True, batch_size=TOKENIZED, remove_columns=["text"])
    return (row["input_ids"] for row in rows if row["input_ids"])


def windows(documents: Iterable[list[int]], frame: Frame, length: int) -> Iterator[list[int]]:
    """Cuts documents, strung together, into examples.

    A document that does not fit goes on in the next example, so nothing is lost. Where one ends
    and the next begins within an example stand the tokens ``frame.after``.

    Args:
        documents: token ids of each.
        frame: special tokens, of each example and between documents.
        length: tokens of an example, special tokens included.

    Yields:
        Token ids: ``length`` of them, but for the last example, which holds the rest.
    """
    room = length - frame.size
    waiting: list[int] = []
    for ids in documents:
        if waiting:
            waiting.extend(frame.after)
        waiting.extend(ids)
        start = 0
        while len(waiting) - start >= room:
            yield [*frame.before, *waiting[start : start + room], *frame.after]
            start += room
        del waiting[:start]
    if waiting:
        yield [*frame.before, *waiting, *frame.after]


class PackedStream(IterableDataset[dict[str, Any]]):
    """Endless examples of one length: pass after pass over the documents, shuffled anew each time.

    The passes are strung together: what is left at the end of one begins the next, so no token
    is ever dropped. Everything follows from the seed, and each example carries its number.
    """

    def __init__(
        self,
        documents: Documents,
        tokenizer: Any,
        length: int,
        seed: int,
    ) -> None:
        """Prepares the stream.

        Args:
            documents: rows {"text": str}.
            tokenizer: of the model.
            length: tokens of an example, special tokens included.
            seed: of the order.
        """
        self._documents = documents
        self._tokenizer = tokenizer
        self._length = length
        self._seed = seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields {"input_ids": token ids, "number": int}."""
        examples = windows(self._passes(), frame_of(self._tokenizer), self._length)
        for number, ids in enumerate(examples):
            yield {"input_ids": ids, "number": number}

    def _passes(self) -> Iterator[list[int]]:
        for epoch in itertools.count():
            shuffled = self._documents.shuffle(seed=self._seed + epoch, buffer_size=SHUFFLED)
            empty = True
            for ids in tokenized(shuffled, self._tokenizer):
                empty = False
                yield ids
            if empty:
                raise UserError("the model's tokenizer finds no tokens in the training data")


def packed_list(
    documents: Documents, tokenizer: Any, length: int, limit: int
) -> list[dict[str, Any]]:
    """The first examples of one pass over the documents, in order; the last may be short.

    Args:
        documents: rows {"text": str}.
        tokenizer: of the model.
        length: tokens of an example, special tokens included.
        limit: most examples that are wanted.

    Returns:
        [{"input_ids": token ids, "number": int}].
    """
    examples = windows(tokenized(documents, tokenizer), frame_of(tokenizer), length)
    return [
        {"input_ids": ids, "number": number}
        for number, ids in enumerate(itertools.islice(examples, limit))
    ]
