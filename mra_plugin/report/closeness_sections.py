"""What the comparison on a pretrained encoder shows: how close, at what budget and cost."""

import math
from collections.abc import Sequence

from . import numbers
from .results import MRA, ClosenessResult, Results
from .style import ADDITIONS, ordered
from .tables import Section, Table, of_tables

# The budget of `mra compare`, at which methods are compared with each other.
BLOCKS_PER_ROW = 8
# What stands beside the single additions: from where they start, and what they make together.
AROUND_ADDITIONS = (MRA, "mra per_row", "mra close", "oracle close")


_COLUMNS = (
    "share of pairs that are exact, distance to exact attention's output, multiply-adds beside "
    "exact attention's"
)


def closeness(results: Results) -> Section | None:
    """Each method at the same budget, or the nearest in cost."""
    rows = at_one_budget([one for one in results.closeness if one.method not in ADDITIONS])
    table = _by_method(rows, f"Methods at the same budget, or the nearest in cost: {_COLUMNS}")
    return of_tables("closeness", "How close", _read_by(results), [table if rows else None])


def additions(results: Results) -> Section | None:
    """What the preset "close" adds to the paper's scheme, each by itself and all together."""
    found = with_additions(results.closeness)
    rows = at_one_budget(found)
    table = _by_method(
        rows, f"Each by itself at the paper's budget, or the nearest in cost: {_COLUMNS}"
    )
    return of_tables(
        "additions", "What each addition brings", _read_by(results), [table if rows else None]
    )


def with_additions(found: Sequence[ClosenessResult]) -> list[ClosenessResult]:
    """The single additions and what stands beside them; nothing if there are none."""
    if not any(one.method in ADDITIONS for one in found):
        return []
    return [one for one in found if one.method in (*ADDITIONS, *AROUND_ADDITIONS)]


def budget(results: Results) -> Section | None:
    """MRA at each budget, beside other choices of as many blocks."""
    own = sorted(
        (one for one in results.closeness if one.method == MRA),
        key=lambda one: (one.tokens, one.budget),
    )
    # Once every pair is exact, a larger budget changes nothing.
    whole = {
        tokens: min(
            (one.budget for one in own if one.tokens == tokens and (one.density or 0) >= 1),
            default=math.inf,
        )
        for tokens in {one.tokens for one in own}
    }
    own = [one for one in own if one.budget <= whole[one.tokens]]
    errors = {(one.method, one.tokens, one.budget): one.relative_error for one in results.closeness}
    others = [name for name in ("window", "oracle") if any(key[0] == name for key in errors)]
    rows = []
    for one in own:
        beside = (errors.get((name, one.tokens, one.budget)) for name in others)
        rows.append(
            (
                str(one.tokens),
                str(one.budget),
                numbers.share(one.density),
                numbers.error(one.relative_error),
                numbers.error(one.cosine),
                numbers.share(one.relative_cost),
                *map(numbers.error, beside),
            )
        )
    table = Table(
        "By budget: share of pairs that are exact, distance to exact attention's output, "
        "multiply-adds beside exact attention's"
        + (f"; and the error of {' and '.join(others)} with as many blocks" if others else ""),
        (
            "tokens",
            own[0].budget_unit if own else "budget",
            "density",
            "relative error",
            "cosine",
            "relative cost",
            *(f"{name}: error" for name in others),
        ),
        tuple(rows),
        frozenset(),
    )
    return of_tables("budget", "What a budget buys", _read_by(results), [table if rows else None])


def at_one_budget(found: Sequence[ClosenessResult]) -> list[ClosenessResult]:
    """For each length, each method at MRA's budget, or the nearest in cost where it has another."""
    rows = []
    for tokens in sorted({one.tokens for one in found}):
        here = [one for one in found if one.tokens == tokens]
        own = [one for one in here if one.method == MRA]
        if not own:
            continue
        mra = min(own, key=lambda one: _distance(one.budget, BLOCKS_PER_ROW))
        for method in ordered(one.method for one in here):
            others = [one for one in here if one.method == method]
            # Landmarks are no blocks: the nearest cost makes them comparable.
            rows.append(
                min(
                    others,
                    key=lambda one: (
                        (one.budget, one.budget_unit) != (mra.budget, mra.budget_unit),
                        _distance(one.relative_cost, mra.relative_cost),
                    ),
                )
            )
    return rows


def _by_method(rows: Sequence[ClosenessResult], caption: str) -> Table:
    return Table(
        caption,
        ("tokens", "method", "budget", "density", "relative error", "cosine", "relative cost"),
        tuple(
            (
                str(one.tokens),
                one.method,
                f"{one.budget} {one.budget_unit}",
                numbers.share(one.density),
                numbers.error(one.relative_error),
                numbers.error(one.cosine),
                numbers.share(one.relative_cost),
            )
            for one in rows
        ),
        frozenset({1, 2}),
    )


def _read_by(results: Results) -> str:
    read = dict.fromkeys(f"{one.model} reading {one.text}" for one in results.closeness)
    # The quick set takes fewer layers at some lengths.
    layers = {one.tokens: one.layers for one in results.closeness}
    if len(set(layers.values())) == 1:
        over = _layers(next(iter(layers.values())))
    else:
        over = ", ".join(f"{_layers(layers[at])} at {at} tokens" for at in sorted(layers))
    return f"{', '.join(read)}; averaged over all heads of {over}."


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count != 1)}"


def _distance(one: float, other: float) -> float:
    return abs(math.log(one / other))
