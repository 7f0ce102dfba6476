"""What a plugin may offer."""

from collections.abc import Iterable

import pluggy

from .backend import AttentionBackend

PROJECT = "efficient_attention"
"""Name of the pluggy project, and of the entry point group that plugins are found in."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def efficient_attention_backends() -> Iterable[AttentionBackend]:
    """Returns the backends that the plugin offers.

    Called once per process, when a backend is first asked for: what is expensive to import belongs
    into the backends' ``build``.
    """
    raise NotImplementedError
