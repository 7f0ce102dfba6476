"""What is repeated where an encoder reads more than it learned, or than there is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Repetitions:
    """What is repeated in an input, so that a reader can know it.

    Attributes:
        length: tokens of the input.
        positions: position embeddings that the model learned, where they are repeated.
        text: tokens of the text, where it is repeated.
    """

    length: int
    positions: int | None = None
    text: int | None = None

    def sentences(self) -> list[str]:
        """The same in words; none where nothing is repeated."""
        said = []
        if self.positions is not None:
            said.append(
                f"the model's {self.positions} position embeddings are repeated up to {self.length}"
            )
        if self.text is not None:
            said.append(f"the text has {self.text} tokens and is repeated up to {self.length}")
        return said
