"""Who offers backends, and what the listing says about it."""

import contextlib
import importlib.metadata
import os
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from . import exact
from .backend import AttentionBackend

DISABLE_AUTOLOAD = "EFFICIENT_ATTENTION_DISABLE_AUTOLOAD"
BLOCK = "EFFICIENT_ATTENTION_BLOCK"

Status: TypeAlias = Literal["ok", "unavailable", "conflict", "failed", "blocked"]


@dataclass(frozen=True)
class AttentionInfo:
    """One line of the listing.

    Attributes:
        name: the backend's name; the entry point's where the plugin was not loaded.
        status: "ok", "unavailable" (can't run on this machine), "conflict" (others offer the same
            name), "failed" (the plugin did not load) or "blocked" (the environment switches it
            off).
        reason: why the status is not "ok"; else empty.
        summary: the backend's own line about itself.
        distribution: name of the installed distribution; None for code that has no package.
        version: the distribution's version.
        origin: the entry point's module, or the qualified name of what was registered.
    """

    name: str
    status: Status
    reason: str
    summary: str
    distribution: str | None
    version: str | None
    origin: str


@dataclass(frozen=True)
class Source:
    """Who offers backends: an entry point of a distribution, or an object in this process."""

    plugin: str
    distribution: str | None
    version: str | None
    origin: str

    @property
    def key(self) -> str:
        """What tells an installed plugin from all others, whatever its version."""
        return f"{self.distribution}:{self.plugin}"

    def __str__(self) -> str:
        """The owner, as messages name it."""
        if self.distribution is None:
            return f"{self.origin} (registered in this process)"
        return f"distribution {self.distribution!r} {self.version} ({self.origin})"

    def info(
        self,
        status: Status,
        reason: str = "",
        backend: AttentionBackend | None = None,
    ) -> AttentionInfo:
        """The listing's line for what this source offers, or failed to offer."""
        return AttentionInfo(
            name=backend.name if backend else self.plugin,
            status=status,
            reason=reason,
            summary=backend.summary if backend else "",
            distribution=self.distribution,
            version=self.version,
            origin=self.origin,
        )


def own_source() -> Source:
    """Where the exact backends come from: the distribution that holds this package."""
    distribution = __name__.partition(".")[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.distribution(distribution)
        return Source("exact", found.name, found.version, exact.__name__)
    return Source("exact", distribution, None, exact.__name__)


def entry_point_source(entry_point: importlib.metadata.EntryPoint) -> Source:
    """The source that an entry point stands for."""
    found = entry_point.dist
    return Source(
        plugin=entry_point.name,
        # A half-removed distribution has no name left.
        distribution=(found.name if found else None) or "unknown",
        version=found.version if found else None,
        origin=entry_point.value,
    )


def why_blocked(source: Source) -> str | None:
    """Why the environment keeps a plugin from being loaded, or None if it does not."""
    if (value := os.environ.get(DISABLE_AUTOLOAD, "")) not in ("", "0"):
        return f"the environment has {DISABLE_AUTOLOAD}={value}"
    value = os.environ.get(BLOCK, "")
    blocked = {_normal(name) for name in value.split(",")}
    if not blocked.isdisjoint((_normal(source.plugin), _normal(source.distribution or ""))):
        return f"the environment has {BLOCK}={value}"
    return None


def _normal(name: str) -> str:
    """Spells a name as package indexes do, so that any spelling of a distribution will do."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
