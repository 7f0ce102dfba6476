"""What a layer keeps for its backward, and what it computes again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def recomputed(step: Callable[..., Result], *inputs: object) -> Result:
    """Runs a step of which the inputs alone are kept; the backward runs it again.

    A product of matrices at its end is not computed again, as no gradient needs its result.
    Dropout drops the same. Compilers decide by themselves what is worth keeping.

    Args:
        step: changes nothing but what it returns.
        *inputs: of it, tensors or others.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return step(*inputs)
    return checkpoint(step, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
