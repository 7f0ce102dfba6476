"""One colour, marker and line for each method, in every plot.

The main colours are Okabe and Ito's (https://jfly.uni-koeln.de/color), which people with any kind
of colour vision can tell apart; the others were chosen so that no two methods of one plot come too
close. Markers and lines differ as well.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

Dashes = tuple[int, tuple[int, ...]]
SOLID: Dashes = (0, ())
DASHED: Dashes = (0, (5, 2))
DOTTED: Dashes = (0, (1, 1))


@dataclass(frozen=True)
class Style:
    """How matplotlib draws a method: ``color``, ``marker`` and ``linestyle`` of a line."""

    color: str
    marker: str
    linestyle: Dashes = SOLID


# In the order in which tables and legends name them.
STYLES = {
    "sdpa": Style("#000000", "o"),
    "flash": Style("#000000", "o", DASHED),
    "cudnn": Style("#525252", "X", DASHED),
    "efficient": Style("#e69f00", "v", DOTTED),
    "roberta exact": Style("#2e2e2e", "o"),
    "exact": Style("#171717", "o"),
    "mra": Style("#0072b2", "D"),
    "mra close": Style("#ac22fc", "p"),
    "mra 32x8": Style("#0072b2", "D", DASHED),
    "mra 64x4": Style("#56b4e9", "^", DASHED),
    "mra per_row": Style("#56b4e9", "d", DASHED),
    "mra sparse": Style("#d55e00", "^"),
    "mra sparse per_row": Style("#e69f00", "v", DASHED),
    "mra finer cells": Style("#fa2a11", "o", DASHED),
    "mra salient keys": Style("#6c141a", "s", DASHED),
    "mra by mass": Style("#df717c", "v", DASHED),
    "mra smaller blocks": Style("#4f465d", "X", DASHED),
    "nystrom": Style("#009e73", "s"),
    "nystrom 64": Style("#d75414", "s"),
    "nystrom 256": Style("#a3a1a4", "v"),
    "nystromformer": Style("#b451f6", "p", DASHED),
    "longformer": Style("#26089b", ">"),
    "bigbird": Style("#97b668", "X"),
    "window": Style("#cc79a7", "<", DOTTED),
    "oracle": Style("#525252", "h", DOTTED),
    "oracle close": Style("#040443", ">", DOTTED),
    "xformers": Style("#7b2ff0", "h"),
    "flex_attention": Style("#663819", "p", DASHED),
    "flex_attention 32x8": Style("#663819", "p", DOTTED),
    "flex_attention 64x4": Style("#d55e00", "<", DOTTED),
    "original": Style("#009e73", "s", DOTTED),
}
# What the preset "close" adds to the paper's scheme, each by itself.
ADDITIONS = ("mra finer cells", "mra salient keys", "mra by mass", "mra smaller blocks")
# For methods that come from elsewhere.
FURTHER = (
    Style("#053657", ">"),
    Style("#a55083", "8"),
    Style("#8a7b42", "H"),
    Style("#ab77f8", "X"),
    Style("#4b0679", "P"),
    Style("#d19fb3", "*"),
)


def ordered(methods: Iterable[str]) -> list[str]:
    """Each method once: those known here in a fixed order, then the others by name."""
    names = set(methods)
    return [name for name in STYLES if name in names] + sorted(names - set(STYLES))


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """The style of each method, in the order of `ordered`.

    A method that is not known here gets a style by its name, the same wherever it appears, unless
    two of ``methods`` would share it. Give all methods of a report at once, so that they don't.
    """
    chosen: dict[str, Style] = {}
    for name in ordered(methods):
        if name in STYLES:
            chosen[name] = STYLES[name]
            continue
        first = crc32(name.encode())
        turns = [FURTHER[(first + step) % len(FURTHER)] for step in range(len(FURTHER))]
        chosen[name] = next((one for one in turns if one not in chosen.values()), turns[0])
    return chosen
