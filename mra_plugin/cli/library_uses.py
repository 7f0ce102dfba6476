"""The libraries that attention goes into, a row each: which are here, and how each is told."""

from __future__ import annotations

from dataclasses import dataclass

from mra_plugin.environment import installed_version


@dataclass(frozen=True)
class LibraryUse:
    """How models or calls of a library come to another attention.

    Attributes:
        package: what installs it.
        how: the code that does it, in a line.
    """

    package: str
    how: str


LIBRARY_USES = (
    LibraryUse("transformers", 'attn_implementation="mra", or patch(model)'),
    LibraryUse("sentence-transformers", "the same among model_kwargs, or patch(model)"),
    LibraryUse("diffusers", 'patch(pipeline), set_attention_backend("mra")'),
    LibraryUse("xformers", "memory_efficient_attention(op=xformers_op())"),
)


def library_lines() -> list[tuple[str, str, str]]:
    """Package, version, and how it is used, or that it can't be."""
    lines = []
    for use in LIBRARY_USES:
        version = installed_version(use.package)
        lines.append((use.package, version or "", use.how if version else "not installed"))
    return lines
