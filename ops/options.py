"""What a user may choose about MRA attention, checked once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, TypeVar

from .checks import check_integer

ApproxMode = Literal["full", "sparse"]
Selection = Literal["global", "per_row"]
BlockScore = Literal["mean", "mass"]

_BLOCK_SIZES = (8, 16, 32, 64, 128)


@dataclass(frozen=True, kw_only=True)
class MRAOptions:
    """How coarse, how much exact, and how the exact blocks are chosen.

    Attributes:
        block_size: tokens per block, a power of two from 8 to 128.
        block_per_row: exact blocks per query block. With ``selection="global"`` they are spent
            wherever they matter most; with ``"per_row"`` every row gets exactly this many.
        num_blocks: the budget of exact blocks per head and batch row, in all; overrides
            ``block_per_row`` and goes with ``selection="global"`` only.
        approx_mode: ``"full"`` (MRA-2) averages what was not chosen, ``"sparse"`` (MRA-2-s)
            drops it.
        initial_prior_first_n_blocks: the first n block rows and block columns come first.
        initial_prior_diagonal_n_blocks: block pairs with ``|x - y| <= n // 2`` come first.
        selection: ``"global"`` (the paper's) or ``"per_row"``.
        coarse_key_size: keys per cell that what was not chosen is averaged over, a power of two
            up to ``block_size``; None is ``block_size`` (the paper's).
        salient_keys: keys of each head that every query sees exactly, those of most importance.
        block_score: what blocks are chosen by: ``"mean"``, the score of their means (the paper's),
            or ``"mass"``, the share of the row that their cells are estimated to have.
        exact_up_to: a sequence of at most so many real keys gets exact attention.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size is out of range, or a mode or selection is unknown.
    """

    block_size: int = 32
    block_per_row: int = 4
    num_blocks: int | None = None
    approx_mode: ApproxMode = "full"
    initial_prior_first_n_blocks: int = 0
    initial_prior_diagonal_n_blocks: int = 0
    selection: Selection = "global"
    coarse_key_size: int | None = None
    salient_keys: int = 0
    block_score: BlockScore = "mean"
    exact_up_to: int = 0

    def __post_init__(self) -> None:
        check_integer("block_size", self.block_size)
        if self.block_size not in _BLOCK_SIZES:
            raise ValueError(
                f"block_size must be a power of two from 8 to 128, got {self.block_size}"
            )
        check_integer("block_per_row", self.block_per_row, least=1)
        if self.num_blocks is not None:
            check_integer("num_blocks", self.num_blocks, least=1)
        check_integer("initial_prior_first_n_blocks", self.initial_prior_first_n_blocks, least=0)
        check_integer(
            "initial_prior_diagonal_n_blocks", self.initial_prior_diagonal_n_blocks, least=0
        )
        _check_member("approx_mode", self.approx_mode, ("full", "sparse"))
        _check_member("selection", self.selection, ("global", "per_row"))
        _check_member("block_score", self.block_score, ("mean", "mass"))
        check_integer("salient_keys", self.salient_keys, least=0)
        check_integer("exact_up_to", self.exact_up_to, least=0)
        if self.coarse_key_size is not None:
            check_integer("coarse_key_size", self.coarse_key_size, least=1)
            if self.block_size % self.coarse_key_size:
                raise ValueError(
                    "coarse_key_size must be a power of two up to "
                    f"block_size={self.block_size}, got {self.coarse_key_size}"
                )
        if self.num_blocks is not None and self.selection == "per_row":
            raise ValueError(
                f"num_blocks={self.num_blocks} is a budget for the whole matrix and needs "
                'selection="global"; with selection="per_row" use block_per_row'
            )

    @property
    def cell_size(self) -> int:
        """Keys per coarse cell."""
        return self.coarse_key_size or self.block_size

    @classmethod
    def given_to(cls, caller: str, options: Mapping[str, Any]) -> MRAOptions:
        """The options that a function takes as ``**options``.

        Args:
            caller: the function's name.
            options: by name.

        Raises:
            TypeError: there is no such option, or one has the wrong type.
            ValueError: an option has a wrong value.
        """
        for name in options:
            if name not in cls.__dataclass_fields__:
                raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}")
        return cls(**options)

    def unknown_to(self, served: frozenset[str]) -> list[str]:
        """Options that differ from their defaults and are not among those that are served."""
        return [
            name
            for name, field in self.__dataclass_fields__.items()
            if name not in served and getattr(self, name) != field.default
        ]


class MRAOptionValues(TypedDict, total=False):
    """The fields of `MRAOptions` as keywords, for signatures that hand them on."""

    block_size: int
    block_per_row: int
    num_blocks: int | None
    approx_mode: ApproxMode
    initial_prior_first_n_blocks: int
    initial_prior_diagonal_n_blocks: int
    selection: Selection
    coarse_key_size: int | None
    salient_keys: int
    block_score: BlockScore
    exact_up_to: int


Function = TypeVar("Function", bound=Callable[..., Any])


def lists_options(function: Function) -> Function:
    """Has a function's signature list the fields of `MRAOptions` in place of its ``**options``."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(one.name, keyword, default=one.default, annotation=one.type)
        for one in fields(MRAOptions)
    ]
    first = next((at for at, one in enumerate(own) if one.kind is keyword), len(own))
    parameters = [*own[:first], *options, *own[first:]]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def _check_member(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        choices = " or ".join(f'"{one}"' for one in allowed)
        raise ValueError(f"{name} must be {choices}, got {value!r}")
