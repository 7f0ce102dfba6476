"""What is installed."""

import contextlib
import io
import logging
import platform
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("mra-plugin", "torch", "transformers", "triton", "xformers")


def installed_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter here; None for what is missing."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


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
