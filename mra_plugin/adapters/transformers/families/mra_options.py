"""The options of MRA attention that a config of the MRA family stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.presets import expand_preset

_DEFAULTS = {field.name: field.default for field in fields(MRAOptions)}


def stated_options(config: Any) -> dict[str, Any]:
    """The options that a config has an attribute for; all others are at their defaults."""
    return {name: getattr(config, name) for name in _DEFAULTS if hasattr(config, name)}


def options_of(config: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `mra_plugin.ops.mra_attention` for a model of the MRA family.

    Args:
        config: transformers' or this package's ``MraConfig``.
        params: what goes before the config's attributes; ``"preset"`` may be among them.

    Returns:
        What differs from the defaults of `mra_plugin.ops.MRAOptions`, or may; not checked.

    Raises:
        ValueError: there is no such preset.
    """
    params = expand_preset(params)
    options = stated_options(config)
    if "block_per_row" in params:
        # Else the config's budget in all would overrule the one per row that was asked for.
        options.pop("num_blocks", None)
    options.update(params)
    whole = {**_DEFAULTS, **options}
    if whole["selection"] == "global" and whole["num_blocks"] is None:
        # The original's budget is that of the longest sequence, whatever the length.
        rows = config.max_position_embeddings // whole["block_size"]
        options["num_blocks"] = max(rows, 1) * whole["block_per_row"]
    return options
