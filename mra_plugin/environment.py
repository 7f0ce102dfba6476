"""What is installed, and where models can run on this machine.

torch is imported by what needs it, so that ``mra --help`` is quick.
"""

from __future__ import annotations

import contextlib
import io
import logging
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from .errors import UserError

if TYPE_CHECKING:
    import torch

PACKAGES = ("mra-plugin", "torch", "transformers", "triton", "xformers")


def installed_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter here; None for what is missing."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    return versions | {package: installed_version(package) for package in PACKAGES}


def installed_version(package: str) -> str | None:
    """The version of a package, or None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def warning_of_xformers() -> str:
    """What xformers logs at its first import where its binaries don't load, without the advice."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logger = logging.getLogger("xformers")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        with contextlib.suppress(ImportError):
            import_module("xformers")
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    warning = said.getvalue().removeprefix("WARNING[XFORMERS]: ").partition("Please reinstall")[0]
    return " ".join(warning.split())


def available_devices() -> dict[str, str]:
    """Devices by the name that ``--device`` takes, each with what it is."""
    import torch

    devices = {"cpu": f"{platform.machine()}, {torch.get_num_threads()} threads"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            devices[f"cuda:{index}"] = f"{properties.name}, {memory:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    if torch.xpu.is_available():
        for index in range(torch.xpu.device_count()):
            devices[f"xpu:{index}"] = torch.xpu.get_device_name(index)
    return devices


def parse_device(name: str | None) -> torch.device:
    """The device that ``--device`` names; None means CUDA where there is one, otherwise the CPU.

    Raises:
        UserError: nothing can run there.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        # Whether it is there shows only when something is put on it and read back.
        torch.zeros(1, device=device).tolist()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(
            f"--device {name!r} can't be used here; available: {', '.join(available_devices())}"
        ) from None
    return device


def describe(device: torch.device) -> str:
    """What a device is, by its name and in words."""
    name = str(device)
    for candidate in (name, f"{name}:0"):
        if candidate in (known := available_devices()):
            return f"{candidate} ({known[candidate]})"
    return name
