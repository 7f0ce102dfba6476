"""`mra info`: what is installed, and what can run."""

import warnings

from rich.table import Table

from mra_plugin.environment import available_devices, installed_versions, warning_of_xformers

from .console import console, printable, table_of_facts, table_of_figures


def info() -> None:
    """Lists versions, devices, and every attention with where it comes from.

    An attention that failed to load, or can't run here, is listed with the reason. Below stand the
    presets of mra, and whether its compiled implementation for CPUs serves or why not.

    Example: `mra info`
    """
    facts = table_of_facts()
    for package, version in installed_versions().items():
        facts.add_row(package, version or "not installed")
    if warning := warning_of_xformers():
        facts.add_row("", warning)
    for device, description in available_devices().items():
        facts.add_row(device, description)
    screen = console()
    screen.print(facts, "")
    screen.print(_attentions(), "")
    screen.print(f"presets of mra: {_presets()}")
    screen.print(printable(f"native implementation of mra: {_native()}"))


def _presets() -> str:
    """Each with what it changes of the first, whose options are the defaults."""
    from mra_plugin.ops import PRESETS

    spelled = []
    for name, options in PRESETS.items():
        changed = [f"{one}={getattr(options, one)}" for one in options.unknown_to(frozenset())]
        spelled.append(f"{name} ({', '.join(changed)})" if changed else f"{name} (the defaults)")
    return ", ".join(spelled)


def _native() -> str:
    """Which kernels it has for this processor, or why it doesn't serve."""
    from mra_plugin.ops.native import library

    if library.why_missing:
        return f"{library.why_missing}; eager serves"
    return f"kernels for {library.target()}"


def _attentions() -> Table:
    from mra_plugin.registry import AttentionPluginWarning, available_attention

    table = table_of_figures()
    for header in ("attention", "from", "status", ""):
        table.add_column(header, overflow="fold")
    with warnings.catch_warnings():
        # The table says it.
        warnings.simplefilter("ignore", AttentionPluginWarning)
        found = available_attention()
    for one in found:
        source = f"{one.distribution} {one.version}" if one.distribution else one.origin
        row = (one.name, source, one.status, one.reason or one.summary)
        table.add_row(*map(printable, row))
    return table
