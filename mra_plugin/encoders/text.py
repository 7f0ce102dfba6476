"""The text that the encoder reads, and its tokens."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mra_plugin.cli.errors import BadArgumentError

from .framing import frame_of


def read_text(path: Path | None) -> str:
    """The text of a file, or Python's language reference."""
    if path is None:
        return _language_reference()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadArgumentError(f"can't read --text {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadArgumentError(f"--text {str(path)!r} is not a text file in UTF-8") from None
    if not text.strip():
        raise BadArgumentError(f"--text {str(path)!r} is empty")
    return text


def _language_reference() -> str:
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise BadArgumentError(
            "this Python comes without pydoc_data.topics; name a text with --text FILE"
        ) from None
    return "\n\n".join(topics.values())


@dataclass(frozen=True)
class Tokens:
    """A text as token ids, and the special tokens that the model expects around any text."""

    before: list[int]
    content: list[int]
    after: list[int]

    def __len__(self) -> int:
        """Tokens of the whole text, special tokens included."""
        return len(self.before) + len(self.content) + len(self.after)

    def cut(self, length: int) -> list[int]:
        """The first ``length`` tokens of the text, repeated if it is too short for that."""
        room = length - len(self.before) - len(self.after)
        repeats = math.ceil(room / len(self.content))
        return self.before + (self.content * repeats)[:room] + self.after

    def repetitions(self, length: int, learned: int | None) -> list[str]:
        """What a reader should know of an input of ``length`` tokens.

        Args:
            length: of the input.
            learned: position embeddings that the model had before they were repeated, if they were.
        """
        notes = []
        if learned is not None:
            notes.append(f"the model's {learned} position embeddings are repeated up to {length}")
        if len(self) < length:
            notes.append(f"the text has {len(self)} tokens and is repeated up to {length}")
        return notes


def tokenize(tokenizer: Any, text: str, shortest: int) -> Tokens:
    """Tokenizes a text once for all lengths, of which ``shortest`` is the least."""
    # verbose=False: that the text is longer than the model's positions is no news here.
    content = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if not content:
        raise BadArgumentError("the model's tokenizer finds no tokens in the text")
    frame = frame_of(tokenizer)
    if shortest <= frame.size:
        raise BadArgumentError(
            f"--lengths must be more than the {frame.size} special tokens that the model puts "
            f"around any text, got {shortest}"
        )
    return Tokens(list(frame.before), content, list(frame.after))
