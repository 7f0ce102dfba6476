"""The least that work can take: bytes over bandwidth, operations over peak."""

from __future__ import annotations

from dataclasses import dataclass


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
