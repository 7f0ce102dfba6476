"""Steps timed by the device's own clock."""

from __future__ import annotations

from interleaved import Step
from torch import cuda


class EventStep(Step):
    """A step timed by CUDA events, from its first launch to its last kernel's end."""

    def seconds(self) -> float:
        """Runs once more, and tells how long it took; by the wall clock on a CPU."""
        if self._device.type != "cuda":
            return super().seconds()
        started, ended = (cuda.Event(enable_timing=True) for _ in range(2))
        self._wait()
        started.record()
        self._run()
        ended.record()
        ended.synchronize()
        milliseconds: float = started.elapsed_time(ended)
        return milliseconds / 1000
