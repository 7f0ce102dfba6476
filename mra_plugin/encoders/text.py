"""The text that the encoder reads, and its tokens."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mra_plugin.errors import UserError

from .demo import demo_text
from .framing import frame_of
from .repetitions import Repetitions


def read_text(path: Path | None) -> str:
    """The text of a file, or the demo's.

    Args:
        path: of the file; None means the demo's text.

    Raises:
        UserError: there is no text in it.
    """
    if path is None:
        return demo_text()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't read --text {str(path)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"--text {str(path)!r} is not a text file in UTF-8") from None
    if not text.strip():
        raise UserError(f"--text {str(path)!r} is empty")
    return text


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

    def repetitions(self, length: int, learned: int | None) -> Repetitions:
        """What is repeated in an input of ``length`` tokens.

        Args:
            length: of the input.
            learned: position embeddings that the model had before they were repeated, if they were.
        """
        return Repetitions(length, learned, len(self) if len(self) < length else None)


def content_ids(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text of any length, without special tokens."""
    # verbose=False: that the text is longer than the model's positions is no news here.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def tokenize(tokenizer: Any, text: str, shortest: int) -> Tokens:
    """Tokenizes a text once for all lengths, of which ``shortest`` is the least.

    Raises:
        UserError: the text has no tokens, or the shortest length has no room for any.
    """
    content = content_ids(tokenizer, text)
    if not content:
        raise UserError("the model's tokenizer finds no tokens in the text")
    frame = frame_of(tokenizer)
    if shortest <= frame.size:
        raise UserError(
            f"--lengths must be more than the {frame.size} special tokens that the model puts "
            f"around any text, got {shortest}"
        )
    return Tokens(list(frame.before), content, list(frame.after))
