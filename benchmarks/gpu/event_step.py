"""Steps timed by the device's own clock."""

from __future__ import annotations

from interleaved import Step
from torch import cuda

from mra_plugin.encoders.measure import wait_for

# Of the device's clock: some milliseconds, longer than launching a step takes.
_HEAD_START = 5_000_000


class EventStep(Step):
    """A step timed by CUDA events, from its first launch to its last kernel's end."""

    head_start = 0

    def seconds(self) -> float:
        """Runs once more, and tells how long it took; by the wall clock on a CPU."""
        if self._device.type != "cuda":
            return super().seconds()
        started, ended = (cuda.Event(enable_timing=True) for _ in range(2))
        wait_for(self._device)
        if self.head_start:
            cuda._sleep(self.head_start)
        started.record()
        self._run()
        ended.record()
        ended.synchronize()
        milliseconds: float = started.elapsed_time(ended)
        return milliseconds / 1000


class KernelStep(EventStep):
    """A step without the time to launch it: the device starts when all is launched."""

    head_start = _HEAD_START
