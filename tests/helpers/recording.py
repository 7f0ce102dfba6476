"""An exact attention that keeps what it was given, to see in which order tokens stand."""

from typing import Any

from torch import Tensor

from mra_plugin.registry import build_attention, register_attention

NAME = "test-recorder"


@register_attention(NAME)
class Recorder:
    """Keeps the queries [B, H, N, D] of each call, for all that are built of it."""

    seen: list[Tensor] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.exact = build_attention("sdpa")

    def __call__(self, query: Tensor, *inputs: Any, scale: float | None = None) -> Tensor:
        self.seen.append(query.detach())
        return self.exact(query, *inputs, scale=scale)

    @classmethod
    def first_row(cls) -> Tensor:
        """The first call's queries [N, channels of all heads] of the first sequence."""
        return cls.seen[0][0].transpose(0, 1).flatten(1)
