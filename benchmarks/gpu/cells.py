"""What all contenders are given at one length, and the exact attention they are compared with."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import lru_cache

import torch
from attention_methods import attend as attend_once
from cases import CannotRunError, Direction
from contenders import EXACT, Attend, Contender, Inputs, contenders
from event_step import EventStep
from plan import Plan
from settings import Settings
from torch import Tensor

_TRIALS = 3


@dataclass(frozen=True)
class Cell:
    """A length, a head's channels and a direction."""

    tokens: int
    channels: int
    direction: Direction


@dataclass(frozen=True)
class Problem:
    """Inputs of a cell, and what PyTorch's exact backends make of them.

    Attributes:
        inputs: query, key and value, [B, H, N, D].
        cotangent: [B, H, N, D].
        exact: by label, a backend's step, or why it can't run.
        reference: the label of the fastest.
        output: the reference's, [B, H, N, D].
    """

    inputs: Inputs
    cotangent: Tensor
    exact: dict[str, EventStep | str]
    reference: str
    output: Tensor


@lru_cache(maxsize=1)
def problem_of(cell: Cell, plan: Plan, settings: Settings) -> Problem:
    """Makes the inputs and finds the fastest exact backend.

    Raises:
        CannotRunError: none of them runs.
    """
    shape = (plan.tokens_in_all // cell.tokens, plan.heads, cell.tokens, cell.channels)
    generator = torch.Generator(settings.device).manual_seed(0)
    query, key, value, cotangent = (
        torch.randn(shape, generator=generator, device=settings.device, dtype=settings.dtype)
        for _ in range(4)
    )
    inputs = as_leaves((query, key, value), cell.direction)
    candidates = {one.label: one for one in contenders(plan, cell.tokens, cell.channels, None)}
    exact: dict[str, EventStep | str] = {}
    medians: dict[str, float] = {}
    for label in EXACT:
        try:
            attend = candidates[label].build(inputs, cell.direction)
            step = step_of(attend, inputs, cotangent, cell.direction)
        except (CannotRunError, torch.OutOfMemoryError) as error:
            exact[label] = str(error)
            continue
        exact[label] = step
        medians[label] = statistics.median(step.seconds() for _ in range(_TRIALS))
    if not medians:
        raise CannotRunError(f"there is no exact attention to compare with: {exact}")
    reference = min(medians, key=lambda label: medians[label])
    with torch.no_grad():
        output = candidates[reference].build(inputs, cell.direction)(*inputs)
    return Problem(inputs, cotangent, exact, reference, output)


def contender_step(
    contender: Contender, problem: Problem, direction: Direction
) -> tuple[EventStep, Attend]:
    """A contender's step, and its attention for the inputs of the problem.

    Raises:
        CannotRunError: it can't run here, or not with these inputs.
    """
    inputs, cotangent = problem.inputs, problem.cotangent
    dtype = contender.dtype
    if dtype is not None:
        inputs = as_leaves(tuple(x.detach().to(dtype) for x in inputs), direction)
        cotangent = cotangent.to(dtype)
    attend = contender.build(inputs, direction)
    known = problem.exact.get(contender.label)
    if isinstance(known, str):
        raise CannotRunError(known)
    step = known or step_of(attend, inputs, cotangent, direction)
    return step, lambda *tensors: attend(*(x if dtype is None else x.to(dtype) for x in tensors))


def as_leaves(inputs: Inputs, direction: Direction) -> Inputs:
    query, key, value = (x.requires_grad_(direction == "training") for x in inputs)
    return query, key, value


def step_of(attend: Attend, inputs: Inputs, cotangent: Tensor, direction: Direction) -> EventStep:
    return EventStep(lambda: attend_once(attend, inputs, direction, cotangent), cotangent.device)
