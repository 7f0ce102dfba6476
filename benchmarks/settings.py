"""What a run of the benchmarks was asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
import torch

from mra_plugin.environment import parse_device
from mra_plugin.errors import UserError

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))


@dataclass(frozen=True)
class Settings:
    """Where to measure, and how much.

    Attributes:
        full: every length and budget, with longer measurements; otherwise the quick set.
        device: where to run.
        dtype: what people use there: float32 on a CPU, bfloat16 on a GPU.
    """

    full: bool
    device: torch.device
    dtype: torch.dtype

    @property
    def seconds_per_case(self) -> float:
        """How long to go on with rounds, beyond the least number of them."""
        return 5.0 if self.full else 1.0

    @property
    def labels(self) -> dict[str, str]:
        """The entries of extra_info that are the same for every case."""
        return {"device": str(self.device), "dtype": str(self.dtype).removeprefix("torch.")}


def settings_of(config: pytest.Config) -> Settings:
    """Reads the options of the command line; without ``--device``, a GPU goes first."""
    try:
        device = parse_device(config.getoption("--device"))
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    return Settings(config.getoption("--full"), device, dtype)
