"""What users of the registry call."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from .backend import Attention, AttentionBackend, checked_services, nothing_against_it
from .host import Registry
from .sources import AttentionInfo

Build = TypeVar("Build", bound=Callable[..., Attention])

_registry = Registry()


def available_attention() -> tuple[AttentionInfo, ...]:
    """Lists every backend, and every installed plugin that could not offer one, with the reason.

    Returns:
        One `AttentionInfo` per backend or plugin, sorted by name.

    Warns:
        AttentionPluginWarning: once for each plugin that fails to load.
    """
    return _registry.available()


def get_attention(name: str) -> AttentionBackend:
    """The backend of this name, whether or not it can run on this machine.

    Raises:
        UnknownAttentionError: no backend has this name; the message lists those there are.
        AttentionConflictError: more than one owner offers it; the message names them.
        TypeError: ``name`` is not a str.
    """
    return _registry.get(name)


def build_attention(name_or_config: str | Mapping[str, Any], /, **params: Any) -> Attention:
    """Builds an attention by name.

    ``build_attention("mra", block_per_row=8)`` and
    ``build_attention({"name": "mra", "block_per_row": 8})`` are the same.

    Args:
        name_or_config: name of a backend, or a mapping with the name under "name" and parameters
            beside it; the mapping is left as it is.
        **params: parameters of the backend; they go before those of the mapping.

    Returns:
        The attention, to be called as `Attention` says.

    Raises:
        AttentionParameterError: the backend has no such parameter, or needs one more; the message
            lists those it accepts.
        AttentionUnavailableError: the backend can't run on this machine; the message says why.
        UnknownAttentionError: as for `get_attention`.
        AttentionConflictError: as for `get_attention`.
        ValueError: the mapping has no "name", or the backend refuses a parameter's value.
    """
    return _registry.build(name_or_config, params)


def register_attention(
    name: str,
    *,
    summary: str = "",
    why_unavailable: Callable[[], str | None] = nothing_against_it,
    why_unsupported: Callable[[Tensor, Tensor, Tensor], str | None] = nothing_against_it,
    serves: Iterable[str] = frozenset(),
) -> Callable[[Build], Build]:
    """Decorates a class, or a function that returns an attention, to offer it in this process.

    For code that has no package; what is installed offers its backends through an entry point::

        @register_attention("mean", summary="averages the values")
        class MeanAttention: ...

    Defining the same object again (a notebook's cell that runs twice) replaces it.

    Args:
        name: what to ask for it by.
        summary: one line for listings.
        why_unavailable: as in `AttentionBackend`.
        why_unsupported: as in `AttentionBackend`.
        serves: as in `AttentionBackend`.

    Raises:
        AttentionConflictError: something else has this name; the message names both owners. A
            plugin that is not loaded yet comes to light when the name is asked for.
        TypeError: the decorated object, or an argument, is not what `AttentionBackend` takes.
        ValueError: likewise.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name must be a str, got {name!r}; write @register_attention('name') above it"
        )

    def register(build: Build) -> Build:
        backend = AttentionBackend(
            name, build, summary, why_unavailable, why_unsupported, checked_services(serves)
        )
        owner = getattr(build, "__qualname__", type(build).__qualname__)
        _registry.register(backend, f"{build.__module__}.{owner}")
        return build

    return register
