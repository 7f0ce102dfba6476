"""The least that work can take: bytes over bandwidth, operations over peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Device:
    """What a device does at best, as measured on the spot.

    Attributes:
        bandwidth: bytes per second, read and written, of large arrays.
        peak: operations per second of products in the type of the run.
    """

    bandwidth: float
    peak: float


@dataclass(frozen=True)
class Work:
    """What a stage has to do: bytes that it must move, and operations."""

    bytes: float
    operations: float

    def floors(self, device: Device) -> dict[str, float]:
        """Both floors in seconds, as results name them."""
        return {
            "floor_bytes_seconds": self.bytes / device.bandwidth,
            "floor_operations_seconds": self.operations / device.peak,
        }


def stages_beside(
    work: Mapping[str, Work], device: Device, seconds: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The stages of a call as results have them: what each took, its share, and its floors.

    Args:
        work: what each stage has to do.
        device: what does it.
        seconds: what each took; 0 for those that the call does not have, which are left out.
    """
    whole = sum(seconds.values())
    return [
        {"stage": stage, "seconds": taken, "share": taken / whole, **work[stage].floors(device)}
        for stage, taken in seconds.items()
        if taken
    ]
