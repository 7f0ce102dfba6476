"""Counts the steps of a pipeline, so that the first ones can stay exact."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


class Steps:
    """Whether a pipeline is in one of its first steps, which its scheduler knows.

    A transformer may be called more than once in a step (guidance), or not at all in some.

    Attributes:
        is_exact: whether the step that is going on is to be exact.
    """

    def __init__(self, pipeline: Any, exact_steps: int) -> None:
        """Changes nothing yet.

        Raises:
            ValueError: there is no scheduler.
        """
        if getattr(pipeline, "scheduler", None) is None:
            raise ValueError(
                f"exact_steps={exact_steps} needs a pipeline with a scheduler, which counts steps; "
                f"got {type(pipeline).__name__}"
            )
        self.pipeline = pipeline
        self.scheduler = pipeline.scheduler
        self.exact_steps = exact_steps
        self.is_exact = True
        self._done = 0

    def start(self) -> None:
        """Follows what the scheduler does from now on."""
        self.scheduler.set_timesteps = _Followed(self.scheduler.set_timesteps, self.begin)
        self.scheduler.step = _Followed(self.scheduler.step, self.move)

    def stop(self) -> None:
        """Leaves the scheduler as it was."""
        for name in ("set_timesteps", "step"):
            self.scheduler.__dict__.pop(name, None)

    def check(self) -> None:
        """Raises RuntimeError if the pipeline has got another scheduler meanwhile."""
        if self.pipeline.scheduler is not self.scheduler:
            raise RuntimeError(
                f"the pipeline's scheduler was replaced by {type(self.pipeline.scheduler).__name__}"
                " after patch, which counts the steps of the one before; patch the pipeline again"
            )

    def begin(self) -> None:
        """Notes that a picture is begun."""
        self._done = 0
        self.is_exact = True

    def move(self) -> None:
        """Notes that a step is done."""
        self._done += 1
        self.is_exact = self._done < self.exact_steps


class _Followed:
    """A method of a scheduler, and a note of it once it is done.

    An object instead of a function, so that copies of a pipeline have copies of it.
    """

    def __init__(self, method: Callable[..., Any], then: Callable[[], None]) -> None:
        self.method = method
        self.then = then
        self.__signature__ = inspect.signature(method)  # which pipelines look at

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.method(*args, **kwargs)
        self.then()
        return result
