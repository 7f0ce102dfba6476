"""Attention backends by name: what one is, how plugins offer them, how one is built.

A plugin is a module that an entry point of the group ``efficient_attention`` names, with a function
``efficient_attention_backends`` under `hookimpl` that returns a list of `AttentionBackend`. Plugins
are loaded when a backend is first asked for, as the environment allows:

- ``EFFICIENT_ATTENTION_DISABLE_AUTOLOAD=1`` loads none of them.
- ``EFFICIENT_ATTENTION_BLOCK=name,name`` leaves out plugins, by the entry point's name or by the
  distribution's.
"""

from .api import available_attention, build_attention, get_attention, register_attention
from .backend import (
    SERVICES,
    Attention,
    AttentionBackend,
    AttentionWithBias,
    AttentionWithExactKeys,
    AttentionWithWeights,
    AttentionWithWindows,
)
from .errors import (
    AttentionConflictError,
    AttentionError,
    AttentionParameterError,
    AttentionPluginWarning,
    AttentionUnavailableError,
    UnknownAttentionError,
)
from .hookspecs import hookimpl
from .sources import AttentionInfo

__all__ = [
    "SERVICES",
    "Attention",
    "AttentionBackend",
    "AttentionConflictError",
    "AttentionError",
    "AttentionInfo",
    "AttentionParameterError",
    "AttentionPluginWarning",
    "AttentionUnavailableError",
    "AttentionWithBias",
    "AttentionWithExactKeys",
    "AttentionWithWeights",
    "AttentionWithWindows",
    "UnknownAttentionError",
    "available_attention",
    "build_attention",
    "get_attention",
    "hookimpl",
    "register_attention",
]
