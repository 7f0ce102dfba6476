"""How an implementation is held against the reference in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mra_plugin.ops import MRAOptions, mra_attention
from mra_plugin.ops.implementations import IMPLEMENTATIONS

from .attention_calls import assert_close, relative_error, run

LIMITS = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def _runs_here(name: str) -> bool:
    x = torch.zeros(1, 1, 32, 16)
    (row,) = (one for one in IMPLEMENTATIONS if one.name == name)
    return row.why_not(x, x, MRAOptions()) is None


# The rows of the table that run on this machine's CPU, but for what they are held against.
HERE = [one.name for one in IMPLEMENTATIONS if one.name != "reference" and _runs_here(one.name)]


def compare(
    impl: str,
    inputs: tuple[Tensor, Tensor, Tensor],
    *masks: Tensor | None,
    limits: dict[torch.dtype, float] = LIMITS,
    **options: Any,
) -> None:
    """Checks an implementation in the inputs' type against the reference in float64.

    What it says that it can't serve, it has to refuse.
    """
    dtype = inputs[0].dtype
    (row,) = (one for one in IMPLEMENTATIONS if one.name == impl)
    known = {name: value for name, value in options.items() if name != "scale"}
    if row.why_not(inputs[0], inputs[2], MRAOptions(**known)):
        with pytest.raises(ValueError, match=f'impl="{impl}"'):
            run(inputs, *masks, impl=impl, **options)
        return
    # The choice is made from float32 scores: the reference has to see the same numbers.
    exact = run(tuple(x.double() for x in inputs), *masks, impl="reference", **options)
    actual = run(inputs, *masks, impl=impl, **options)
    assert all(x.dtype == dtype for x in (actual[0], *actual[2:]))
    assert_close(actual, exact, limits[dtype])
    # Without the log-sum-exp a call may go another way.
    plain = mra_attention(*inputs, *masks, impl=impl, **options)
    assert relative_error(plain, exact[0]) <= limits[dtype]
