"""The settings of a training run as a YAML file, read and written."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from mra_plugin.errors import UserError
from mra_plugin.registry.names import nearest

from .config import TYPES, TrainingConfig


def settings_to_yaml(config: TrainingConfig) -> str:
    """The settings as the content of a file that `settings_from_yaml` reads."""
    values = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def settings_from_yaml(path: Path, called: str = "--config") -> dict[str, Any]:
    """Reads settings by name from a YAML file, each of its field's type.

    Args:
        path: of the file.
        called: names it in messages, beside its path.

    Raises:
        UserError: the file can't be read, or has an unknown key or a value of a wrong type.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"can't read {called} {str(path)!r}: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{called} {str(path)!r} is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # numbers and dates that there can't be
        raise UserError(f"{called} {str(path)!r} is not YAML: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UserError(f"{called} {str(path)!r} must hold keys and values")
    for name in found:
        if name not in TYPES:
            hint = nearest(str(name), TYPES)
            raise UserError(f"{called} {str(path)!r}: unknown key {name!r}{hint}")
    return {name: _typed(name, value, TYPES[name]) for name, value in found.items()}


def _typed(name: str, value: Any, kind: Any) -> Any:
    """``value`` as the type of its field."""
    if isinstance(kind, types.UnionType):
        kinds = typing.get_args(kind)
        return None if value is None else _typed(name, value, kinds[0])
    if typing.get_origin(kind) is tuple:
        values = value if isinstance(value, list) else [value]
        return tuple(_typed(name, one, typing.get_args(kind)[0]) for one in values)
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 5e-5, without a point, for a text
        except (OverflowError, TypeError, ValueError):
            pass
    elif type(value) is kind:
        return value
    raise UserError(f"{name} must be of type {kind.__name__}, got {value!r}")
