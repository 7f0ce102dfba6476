"""Tiny models of all families of this package, a row each, by the names of their classes."""

from __future__ import annotations

from types import ModuleType

from torch import Tensor, nn

from helpers import tiny_mra, tiny_nystromformer

# A row has HEADS, SIZES, make, inputs_of and labels_of.
FAMILIES: dict[str, ModuleType] = {"Mra": tiny_mra, "Nystromformer": tiny_nystromformer}
HEADS = [head for family in FAMILIES.values() for head in family.HEADS]


def family_of(head: str) -> str:
    return next(name for name in FAMILIES if head.startswith(name))


def make(head: str, **extra: object) -> nn.Module:
    return FAMILIES[family_of(head)].make(head, **extra)


def inputs_of(head: str) -> dict[str, Tensor]:
    return FAMILIES[family_of(head)].inputs_of(head)


def labels_of(head: str) -> dict[str, Tensor]:
    return FAMILIES[family_of(head)].labels_of(head)
