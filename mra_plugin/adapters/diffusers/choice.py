"""What a transformer was given: an attention, the order of its tokens, and where it stays exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..ordered_attention import Arrangement, attend_arranged, in_tiles
from .grids import coordinates_in

if TYPE_CHECKING:
    from ..built_attention import BuiltAttention
    from .layouts import Layout
    from .steps import Steps


@dataclass(eq=False)
class Choice:
    """The choice for one transformer, and what is known of the call that it is in.

    Attributes:
        attention: what was built.
        layout: where the grid's tokens stand; None leaves them in the model's own order.
        grid: the sides of the grid, where they are given and not read from the call.
        steps: counts the steps of a pipeline; None if no step is exact.
        arrangement: of the tokens of this call.
    """

    attention: BuiltAttention
    layout: Layout | None
    grid: tuple[int, ...] | None
    steps: Steps | None
    arrangement: Arrangement | None = None

    def is_exact_now(self) -> bool:
        """Whether this step of the pipeline is one of the first ones, that stay exact."""
        return self.steps is not None and self.steps.is_exact

    def note_call(self, transformer: nn.Module, given: dict[str, Any]) -> None:
        """Reads the grid from a transformer's call, before it runs.

        Args:
            transformer: that is called.
            given: its arguments by name.

        Raises:
            RuntimeError: the pipeline has another scheduler than it had when it was patched.
            ValueError: the call does not say what grid its tokens stand in.
        """
        if self.steps is not None:
            self.steps.check()
        if self.layout is None:
            return
        # Anew in each call: what is made in inference mode no later training could use.
        self.arrangement = in_tiles(coordinates_in(transformer, given, self.layout, self.grid))

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding: Tensor | None,
        scale: float | None,
    ) -> Tensor:
        """Self-attention [B, H, N, D] of the grid's tokens and those beside it.

        Raises:
            ValueError: there are fewer tokens than the grid has, or others where it has none.
        """
        if self.layout is None:
            return self.attention.attend(query, key, value, padding, None, scale=scale)
        if self.arrangement is None:
            raise ValueError("a layer was called before its transformer, which knows the grid")
        tokens = self.arrangement.order.shape[0]
        others = query.shape[2] - tokens
        if others < 0 or (others and self.layout.text == "none"):
            raise ValueError(
                f"a layer attends over {query.shape[2]} tokens, and the grid has {tokens}; give "
                "patch the sides of its grid as grid=(height, width) or (frames, height, width), "
                "or token_order=None for blocks of the row as it is"
            )
        before = others if self.layout.text == "front" else 0
        return attend_arranged(
            self.attention, query, key, value, padding, self.arrangement, before, scale
        )
