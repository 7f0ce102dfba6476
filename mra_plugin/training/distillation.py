"""Training that brings an approximating encoder close to its exact teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from transformers import PreTrainedModel, Trainer

from mra_plugin.encoders.exact import make_exact
from mra_plugin.encoders.loading import load_checkpoint
from mra_plugin.encoders.positions import extend_positions
from mra_plugin.errors import UserError

from .config import TrainingConfig
from .losses import labelled_loss
from .models import encoder_of
from .teacher_closeness import TeacherCloseness


@dataclass(frozen=True)
class Distillation:
    """What distillation needs beside a model and its data.

    Attributes:
        teacher: encoder with exact attention.
        closeness: of an encoder to the teacher.
        headless: whether the encoder alone is trained, of a model that has a head.
    """

    teacher: PreTrainedModel
    closeness: TeacherCloseness
    headless: bool


def load_teacher(config: TrainingConfig, student: PreTrainedModel, length: int) -> PreTrainedModel:
    """The teacher's encoder with exact attention, its positions tiled up to ``length`` tokens.

    Raises:
        UserError: it can't be loaded, or has not the student's layers and width.
    """
    name = config.model if config.distill == "self" else str(config.distill)
    try:
        teacher = make_exact(encoder_of(load_checkpoint(name).model))
    except UserError as error:
        raise UserError(f"distill={config.distill!r} can't be the teacher: {error}") from None
    for size in ("vocab_size", "hidden_size", "num_hidden_layers"):
        theirs, ours = getattr(teacher.config, size, None), getattr(student.config, size, None)
        if theirs != ours:
            raise UserError(
                f"distill={config.distill!r} has {size}={theirs}, but {config.model!r} has {ours}"
            )
    extend_positions(teacher, length)
    teacher.float()
    teacher.eval().requires_grad_(False)
    return teacher


def without_dropout(model: nn.Module) -> None:
    """Takes dropout out of a live model, as a teacher has none; its config keeps it."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def distance(student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor) -> Tensor:
    """How far a student's hidden states are from its teacher's.

    Each token's states are compared after they are brought to mean 0 and variance 1, so that each
    layer and token counts alike; one minus the cosine of the last layer's tokens, and of their
    means over each sequence, come on top.

    Args:
        student: hidden states [B, N, D] of the embeddings and each layer.
        teacher: the same of the teacher.
        mask: [B, N], 1 at real tokens.

    Returns:
        A scalar, 0 if they are equal up to scale and shift.
    """
    real = mask.bool()
    layers = [
        (_normalised(ours[real]) - _normalised(theirs[real])).square().mean()
        for ours, theirs in zip(student[1:], teacher[1:], strict=True)
    ]
    ours, theirs = student[-1].float(), teacher[-1].float()
    tokens = torch.cosine_similarity(ours[real], theirs[real], dim=-1).mean()
    weight = mask[..., None].float()
    ours, theirs = (ours * weight).sum(1), (theirs * weight).sum(1)
    sentences = torch.cosine_similarity(ours, theirs, dim=-1).mean()
    return torch.stack(layers).mean() + (1 - tokens) + (1 - sentences)


class DistillationTrainer(Trainer):
    """A Trainer whose loss is the `distance` to a teacher, plus masked LM if wanted."""

    def __init__(self, *, teacher: PreTrainedModel, mlm_weight: float, **rest: Any) -> None:
        """Prepares training.

        Args:
            teacher: encoder with exact attention.
            mlm_weight: weight of the masked-LM loss; batches have labels if it isn't 0.
            **rest: for the Trainer.
        """
        # Says to the Trainer that the loss is already scaled for accumulation.
        super().__init__(**rest, compute_loss_func=labelled_loss)
        nn.Module.to(teacher, self.args.device)
        self._teacher = teacher
        self._mlm_weight = mlm_weight

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, as the Trainer wants it."""
        labels = inputs.pop("labels", None)
        outputs = model(**inputs, output_hidden_states=True)
        with torch.no_grad():
            target = self._teacher(**inputs, output_hidden_states=True).hidden_states
        loss = distance(outputs.hidden_states, target, inputs["attention_mask"])
        loss = loss / self.args.gradient_accumulation_steps
        if labels is not None:
            masked = labelled_loss(outputs, labels, num_items_in_batch)
            # Gradients are averaged over processes, but this is their share of a sum.
            loss = loss + self._mlm_weight * masked * self.args.world_size
        return (loss, outputs) if return_outputs else loss


def _normalised(states: Tensor) -> Tensor:
    return layer_norm(states.float(), states.shape[-1:])
