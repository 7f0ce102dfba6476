"""A run that diverged ends with an error, and never writes what came of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import TrainerCallback

from mra_plugin.errors import UserError

from .checkpoints import last_checkpoint

# Losses in a row that may be no finite number: scaling of float16 gets over one or two.
MOST_LOSSES = 2


class StopDiverged(TrainerCallback):
    """Ends a run whose loss or weights are no finite numbers, before they are saved."""

    def __init__(self) -> None:
        """Begins without a loss."""
        self._lost = 0
        self._logged = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """Called by the Trainer.

        Raises:
            UserError: too many losses in a row are not finite.
        """
        if "loss" not in logs:
            return
        self._logged = True
        self._lost = 0 if math.isfinite(logs["loss"]) else self._lost + 1
        if self._lost > MOST_LOSSES:
            raise _diverged("loss", state.global_step, args.output_dir)

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any
    ) -> None:
        """Called by the Trainer, after it has decided whether to save.

        Raises:
            UserError: it would save weights that are not finite.
        """
        if control.should_save:
            self.check_weights(model, state.global_step, args.output_dir)

    def check_end(self, model: nn.Module, loss: float | None, step: int, out: str) -> None:
        """Checks what a run ends with.

        Args:
            model: that was trained.
            loss: mean of the run; None if no step was taken.
            step: the last one.
            out: folder of the run.

        Raises:
            UserError: weights are not finite, or the last loss is not.
        """
        self.check_weights(model, step, out)
        unknown = loss is not None and not self._logged and not math.isfinite(loss)
        if self._lost or unknown:
            raise _diverged("loss", step, out)

    def check_weights(self, model: nn.Module, step: int, out: str) -> None:
        """Checks the weights of all processes.

        Raises:
            UserError: in each process, if any weight of any of them is not finite.
        """
        if not _finite(model):
            raise _diverged("weights", step, out)


def _finite(model: nn.Module) -> bool:
    # Of parameters that are spread over processes, each looks at its part.
    parts = [getattr(one, "to_local", lambda one=one: one)() for one in model.parameters()]
    finite = all(bool(one.isfinite().all()) for one in parts)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return finite
    device = parts[0].device if parts else torch.device("cpu")
    all_finite = torch.tensor(int(finite), device=device)
    dist.all_reduce(all_finite, dist.ReduceOp.MIN)
    return bool(all_finite)


def _diverged(what: str, step: int, out: str) -> UserError:
    checkpoint = last_checkpoint(Path(out))
    kept = f"{checkpoint} is the last checkpoint" if checkpoint else "there is no checkpoint"
    return UserError(
        f"training diverged by step {step}: the {what} became infinite or not a number, and "
        f"nothing of it was saved; {kept}; a smaller learning_rate or a longer warmup may help"
    )
