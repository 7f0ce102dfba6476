"""Tiny models of all families of this package, a row each, by the names of their classes."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor, nn

from helpers import tiny_mega, tiny_mra, tiny_nystromformer

# A row has HEADS, SIZES, HEAD_COUNT, STILL (fields of a model without dropout), KEPT_WHOLE (what
# device maps don't part, without the family's name), LAYER_LIST (where the layers are), make,
# inputs_of and labels_of.
FAMILIES: dict[str, ModuleType] = {
    "Mra": tiny_mra,
    "Nystromformer": tiny_nystromformer,
    "Mega": tiny_mega,
}
HEADS = [head for family in FAMILIES.values() for head in family.HEADS]


def family_of(head: str) -> str:
    return next(name for name in FAMILIES if head.startswith(name))


def row_of(head: str) -> ModuleType:
    return FAMILIES[family_of(head)]


def make(head: str, **extra: object) -> nn.Module:
    return row_of(head).make(head, **extra)


def inputs_of(head: str) -> dict[str, Tensor]:
    return row_of(head).inputs_of(head)


def labels_of(head: str) -> dict[str, Tensor]:
    return row_of(head).labels_of(head)
