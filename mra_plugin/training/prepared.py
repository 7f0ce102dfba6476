"""What a Trainer needs to know of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from .distillation import Distillation


@dataclass
class PreparedTask:
    """What a Trainer needs to know of a task.

    Attributes:
        model: to be trained.
        train_data: dataset of examples.
        eval_data: list of examples, None without an evaluation.
        collator: makes batches.
        loss: of (outputs, labels, num_items_in_batch).
        keep: what is kept of (logits, labels) for the metrics.
        metrics: of all that was kept; None means the loss alone.
        notes: what the user should know.
        distillation: teacher and measure of closeness; None without distillation.
        use_cache: what the model's config says of a cache; None if nothing.
    """

    model: PreTrainedModel
    train_data: Any
    eval_data: list[dict[str, Any]] | None
    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    loss: Callable[..., Any] | None = None
    keep: Callable[[Any, Any], Any] | None = None
    metrics: Callable[[Any], dict[str, float]] | None = None
    notes: list[str] = field(default_factory=list)
    distillation: Distillation | None = None
    use_cache: bool | None = field(init=False)

    def __post_init__(self) -> None:
        self.use_cache = getattr(self.model.config, "use_cache", None)
