"""`mra info`: what is installed, and what can run."""

import warnings
from collections.abc import Iterator

from rich.table import Table

from mra_plugin.environment import available_devices, installed_versions, warning_of_xformers

from .console import console, printable, table_of_headed_facts
from .library_uses import library_lines


def info() -> None:
    """Shows what computes MRA attention on each device here, and where attention can go.

    For every implementation: whether it serves, or why not. Then the libraries that are found and
    how each is told, every attention of the registry (one that failed to load, or can't run here,
    with the reason), and the presets of mra.

    Example: `mra info`
    """
    versions = installed_versions()
    screen = console()
    own = ("mra-plugin", "python", "torch", "triton")
    found = (f"{name} {versions[name]}" for name in own if versions[name])
    screen.print(printable(", ".join(found)))
    screen.print(_implementations())
    for table in (_libraries(), _attentions(), _presets()):
        screen.print("", table, sep="\n")


def _implementations() -> Table:
    """A column for each device."""
    devices = available_devices()
    table = table_of_headed_facts(
        "mra by", *(f"{device} ({what})" for device, what in devices.items())
    )
    columns = [list(_serving(device)) for device in devices]
    for rows in zip(*columns, strict=True):
        table.add_row(rows[0][0], *(printable(said) for _, said in rows))
    return table


def _serving(device: str) -> Iterator[tuple[str, str]]:
    """Each implementation with whether it serves ordinary tensors of a device, or why not."""
    import torch

    from mra_plugin.ops import PRESETS
    from mra_plugin.ops.implementations import IMPLEMENTATIONS, select
    from mra_plugin.ops.native import library

    # The paper's options: every implementation knows them.
    x, options = torch.empty(1, 1, 64, 64, device=device), PRESETS["paper"]
    taken = select("auto", x, x, options)
    for one in IMPLEMENTATIONS:
        said = one.why_unsupported(x, x, options)
        if not said:
            said = "serves" if one is taken else f'serves if asked for by impl="{one.name}"'
            if one.name == "native":
                said += f", with kernels for {library.target()}"
        yield one.name, said


def _libraries() -> Table:
    table = table_of_headed_facts("library", "", "how it is told")
    for line in library_lines():
        table.add_row(*map(printable, line))
    # What it says of its own kernels, of which ours need none.
    if warning := warning_of_xformers():
        table.add_row("", "", printable(warning.partition(". ")[0]))
    return table


def _attentions() -> Table:
    from mra_plugin.registry import AttentionPluginWarning, available_attention

    with warnings.catch_warnings():
        # The table says it.
        warnings.simplefilter("ignore", AttentionPluginWarning)
        found = available_attention()
    table = table_of_headed_facts("attention", "from", "")
    for one in found:
        # This package's own version stands above.
        source = one.distribution or one.origin
        if one.version and source != "mra-plugin":
            source = f"{source} {one.version}"
        about = one.summary if one.status == "ok" else f"{one.status}: {one.reason}"
        table.add_row(*map(printable, (one.name, source, about)))
    return table


def _presets() -> Table:
    """Each with what it changes of the first, whose options are the defaults."""
    from mra_plugin.ops import PRESETS

    first, *others = PRESETS
    table = table_of_headed_facts("preset", f"beside {first}, the defaults")
    for name in others:
        options = PRESETS[name]
        changed = [f"{one}={getattr(options, one)}" for one in options.unknown_to(frozenset())]
        table.add_row(name, ", ".join(changed))
    return table
