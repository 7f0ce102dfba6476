"""The host: finds plugins, knows who offers which backend, and builds attention by name."""

import contextlib
import importlib.metadata
import itertools
import threading
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import pluggy

from . import exact, hookspecs
from .backend import Attention, AttentionBackend
from .errors import (
    AttentionConflictError,
    AttentionPluginWarning,
    AttentionUnavailableError,
    UnknownAttentionError,
)
from .names import nearest, quoted
from .sources import BLOCK, AttentionInfo, Source, entry_point_source, own_source, why_blocked

# More than any plugin offers; an answer without an end stops here.
MOST_BACKENDS = 1000


class Registry:
    """Backends by name, from plugins and from this process.

    Entry points are read when a backend is first asked for, and again by each listing and before a
    name is declared unknown, so that what is installed meanwhile is found. A plugin is loaded once.
    """

    def __init__(self) -> None:
        """Starts with the exact backends alone."""
        self._plugins = pluggy.PluginManager(hookspecs.PROJECT)
        self._plugins.add_hookspecs(hookspecs)
        self._offers: dict[str, list[tuple[Source, AttentionBackend]]] = {}
        self._failed: dict[Source, str] = {}
        self._blocked: dict[Source, str] = {}
        self._tried: set[str] = set()
        self._discovered = False
        self._discovering = False
        # Two locks, so that a module which registers something while another thread discovers
        # (and perhaps waits for that module's import) never waits for the discovery.
        self._discovery_lock = threading.RLock()
        self._offers_lock = threading.Lock()
        self._load(exact, own_source())

    def available(self) -> tuple[AttentionInfo, ...]:
        """See `available_attention`."""
        self._discover()
        with self._offers_lock:
            offers = {name: list(offered) for name, offered in self._offers.items()}
        rows = [source.info("failed", reason) for source, reason in list(self._failed.items())]
        rows += [source.info("blocked", reason) for source, reason in list(self._blocked.items())]
        for offered in offers.values():
            for source, backend in offered:
                others = [str(other) for other, _ in offered if other != source]
                if others:
                    rows.append(
                        source.info("conflict", f"also offered by {' and '.join(others)}", backend)
                    )
                elif reason := _why_unavailable(backend):
                    rows.append(source.info("unavailable", reason, backend))
                else:
                    rows.append(source.info("ok", backend=backend))
        return tuple(sorted(rows, key=lambda row: (row.name, row.distribution or "", row.origin)))

    def get(self, name: str) -> AttentionBackend:
        """See `get_attention`."""
        return self._find(name)[1]

    def build(self, name_or_config: str | Mapping[str, Any], params: dict[str, Any]) -> Attention:
        """See `build_attention`."""
        if isinstance(name_or_config, Mapping):
            config = dict(name_or_config)
            if "name" not in config:
                raise ValueError(
                    "the config of an attention needs the key 'name', "
                    f"got the keys {quoted(map(str, config))}"
                )
            name = config.pop("name")
            params = {**config, **params}
        else:
            name = name_or_config
        source, backend = self._find(name)
        backend.check_parameters(params)
        if reason := _why_unavailable(backend):
            raise AttentionUnavailableError(f"attention {name!r} can't run here: {reason}")
        try:
            attention = backend.build(**params)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise AttentionUnavailableError(
                f"attention {name!r}, from {source}, can't be built: {_told(error)}"
            ) from error
        if not callable(attention):
            raise TypeError(
                f"build of attention {name!r}, from {source}, must return a callable, "
                f"got {attention!r}"
            )
        return attention

    def register(self, backend: AttentionBackend, origin: str) -> None:
        """Adds a backend of this process; ``origin`` is its owner's qualified name."""
        source = Source(backend.name, None, None, origin)
        with self._offers_lock:
            offered = self._offers.setdefault(backend.name, [])
            others = [str(owner) for owner, _ in offered if owner != source]
            if others:
                raise AttentionConflictError(
                    f"attention {backend.name!r} is taken by {' and '.join(others)}; "
                    f"{source} needs another name"
                )
            # The same owner again is a cell that ran twice, or a module that was reloaded.
            offered[:] = [(source, backend)]

    def _find(self, name: str) -> tuple[Source, AttentionBackend]:
        if not isinstance(name, str):
            raise TypeError(f"the name of an attention must be a str, got {name!r}")
        if not self._discovered or name not in self._offers:
            self._discover()
        with self._offers_lock:
            offered = list(self._offers.get(name, ()))
            known = sorted(self._offers)
        if len(offered) > 1:
            owners = " and ".join(str(source) for source, _ in offered)
            raise AttentionConflictError(
                f"attention {name!r} is offered by {owners}; uninstall one of them, "
                f"or name its distribution in the environment variable {BLOCK}"
            )
        if not offered:
            out = [(source, f"failed to load: {why}") for source, why in self._failed.items()]
            out += [(source, f"is switched off: {why}") for source, why in self._blocked.items()]
            notes = "".join(f"; plugin {who.plugin!r} of {who} {why}" for who, why in out)
            raise UnknownAttentionError(
                f"there is no attention {name!r}{nearest(name, known)}, only {quoted(known)}{notes}"
            )
        return offered[0]

    def _discover(self) -> None:
        """Loads the plugins that are installed, allowed, and not tried before."""
        failed: dict[Source, str] = {}
        with self._discovery_lock:
            # A plugin whose import asks for a backend gets what is there so far.
            if self._discovering:
                return
            self._discovering = True
            try:
                blocked: dict[Source, str] = {}
                for entry_point in importlib.metadata.entry_points(group=hookspecs.PROJECT):
                    source = entry_point_source(entry_point)
                    if source.key in self._tried:
                        continue
                    if reason := why_blocked(source):
                        blocked[source] = reason
                        continue
                    self._tried.add(source.key)
                    try:
                        self._load(entry_point.load(), source)
                    except KeyboardInterrupt:
                        self._tried.discard(source.key)
                        raise
                    except BaseException as error:  # SystemExit, of a plugin that calls sys.exit
                        failed[source] = _told(error)
                self._failed = {**self._failed, **failed}
                self._blocked = blocked
                self._discovered = True
            finally:
                self._discovering = False
        # Only now: a warning may be turned into an error, and must not leave things half done.
        for source, reason in failed.items():
            warnings.warn(
                f"attention plugin {source.plugin!r} of {source} failed to load: {reason}",
                AttentionPluginWarning,
                stacklevel=2,
            )

    def _load(self, plugin: object, source: Source) -> None:
        """Registers a plugin and takes all that it offers, or nothing if it is faulty."""
        try:
            self._plugins.register(plugin, name=source.key)
            self._plugins.check_pending()
            backends = self._ask(plugin)
        except BaseException:
            with contextlib.suppress(Exception):
                self._plugins.unregister(name=source.key)
            raise
        with self._offers_lock:
            for backend in backends:
                self._offers.setdefault(backend.name, []).append((source, backend))

    def _ask(self, plugin: object) -> list[AttentionBackend]:
        """Calls one plugin's hook, so that its errors are its own."""
        hook = self._plugins.hook.efficient_attention_backends
        if not any(answer.plugin is plugin for answer in hook.get_hookimpls()):
            raise TypeError(f"{plugin!r} has no @hookimpl function {hook.name!r}")
        others = self._plugins.get_plugins() - {plugin}
        answers = self._plugins.subset_hook_caller(hook.name, others)()
        # pluggy leaves out an answer of None.
        answer = answers[0] if answers else None
        if not isinstance(answer, Iterable):
            raise TypeError(f"{hook.name} must return a list of AttentionBackend, got {answer!r}")
        backends: dict[str, AttentionBackend] = {}
        for backend in itertools.islice(answer, MOST_BACKENDS + 1):
            if not isinstance(backend, AttentionBackend):
                raise TypeError(
                    f"{hook.name} must return a list of AttentionBackend, got {backend!r} in it"
                )
            if backend.name in backends:
                raise ValueError(f"{hook.name} returns two backends named {backend.name!r}")
            backends[backend.name] = backend
        if len(backends) > MOST_BACKENDS:
            raise ValueError(f"{hook.name} returns more than {MOST_BACKENDS} backends")
        return list(backends.values())


def _why_unavailable(backend: AttentionBackend) -> str | None:
    try:
        reason = backend.why_unavailable()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"its check raised {_told(error)}"
    if reason is None or isinstance(reason, str):
        return reason
    return f"its check must return a text or None, got an object of type {type(reason).__name__}"


def _told(error: BaseException) -> str:
    """An error of a plugin, whose text may be at fault as well."""
    try:
        text = str(error)
    except Exception:
        text = "(an error without a readable text)"
    return f"{type(error).__name__}: {text}"
