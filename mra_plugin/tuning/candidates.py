"""What is tried: a few families of settings around the presets, and budgets for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.options import BlockScore, Selection


@dataclass(frozen=True, kw_only=True)
class Family:
    """Options of MRA attention that differ in more than the budget; see `MRAOptions`."""

    block_size: int
    coarse_key_size: int | None
    salient_keys: int
    block_score: BlockScore
    selection: Selection


@dataclass(frozen=True)
class Setting:
    """What can be measured.

    Attributes:
        family: all but the budget.
        budget: keys in the blocks that each query sees exactly, a multiple of the block size.
        exact_up_to: sequences of at most so many tokens get exact attention.
    """

    family: Family
    budget: int
    exact_up_to: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """All options of MRA attention, written out as a config keeps them."""
        family = asdict(self.family)
        blocks = self.budget // self.family.block_size
        return asdict(MRAOptions(block_per_row=blocks, exact_up_to=self.exact_up_to, **family))


# The preset "close" is the second of them, with 224 keys.
FAMILIES: tuple[Family, ...] = (
    *(
        Family(
            block_size=block_size,
            coarse_key_size=cell,
            salient_keys=salient_keys,
            block_score="mass",
            selection="per_row",
        )
        for block_size in (16, 32)
        for cell in (block_size // 4, None)
        for salient_keys in (0, 32)
    ),
    # The paper's.
    Family(
        block_size=32,
        coarse_key_size=None,
        salient_keys=0,
        block_score="mean",
        selection="global",
    ),
)

# Each about a quarter more than the one before: finer steps are lost in the noise of the clock.
_BUDGETS = (
    *(64, 96, 128, 160, 192, 224, 256, 320, 384, 448),
    *(512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048),
)


def budgets(longest: int) -> Sequence[int]:
    """The budgets to try, ascending.

    Args:
        longest: tokens of the longest input. With half of its keys exact there is nothing to gain.
    """
    return [one for one in _BUDGETS if one <= longest // 2]
