"""What a run does beside the Trainer's own steps."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class Lines(TrainerCallback):
    """Prints the log as short lines, where there is no terminal for a progress bar."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        """Called by the Trainer."""
        if state.is_world_process_zero:
            figures = (f"{k} {v:.6g}" for k, v in logs.items() if isinstance(v, float))
            print(f"step {state.global_step}/{state.max_steps}", *figures, sep="  ", flush=True)


class NoStepLeftError(Exception):
    """A run is resumed from its last step."""


class StopAtTheEnd(TrainerCallback):
    """Stops a resumed run that is at its end, where the Trainer would take one step more."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Called by the Trainer, once it has loaded the checkpoint.

        Raises:
            NoStepLeftError: to leave ``Trainer.train``.
        """
        if state.global_step >= state.max_steps:
            raise NoStepLeftError
