"""The tensors of a checkpoint, by their names."""

from collections.abc import Collection

# Buffers that older versions of transformers stored.
_BUFFERS = ("position_ids", "token_type_ids")


def without_buffers(keys: Collection[str]) -> list[str]:
    """The names but for those of buffers that every model makes by itself, sorted."""
    return sorted(key for key in keys if key.split(".")[-1] not in _BUFFERS)


def belongs_to(key: str, parts: Collection[str]) -> bool:
    """Whether a tensor's name leads through a module of one of these names."""
    return not set(parts).isdisjoint(key.split("."))


def listed(names: Collection[str]) -> str:
    """Names in a line, the first few of many."""
    names = list(names)
    rest = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + rest
