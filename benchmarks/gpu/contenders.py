"""The attentions under comparison on a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from attention_methods import attend as attend_once
from attention_methods import attend_with, methods
from cases import CannotRunError, Direction, first_sentence
from flex_blocks import flex_attention_on_mra_blocks
from plan import Plan
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.registry import build_attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Inputs = tuple[Tensor, Tensor, Tensor]

EXACT = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


@dataclass(frozen=True)
class Contender:
    """A way to compute attention.

    Attributes:
        label: what results call it.
        build: makes it for inputs [B, H, N, D] and a direction; raises CannotRunError.
        params: its parameters, for the results.
        dtype: the only type that it takes; None for that of the run.
    """

    label: str
    build: Callable[[Inputs, Direction], Attend]
    params: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None


def contenders(
    plan: Plan, tokens: int, channels: int, original_module: str | None
) -> list[Contender]:
    """All of them at a length, the exact ones of PyTorch first."""
    found = [Contender(label, _exact(backend)) for label, backend in EXACT.items()]
    found.append(Contender("xformers", _xformers))
    for block in plan.blocks:
        options = plan.options(block, tokens)
        size = f"{options['block_size']}x{options['block_per_row']}"
        found.append(Contender(f"mra {size}", _mra(options), options))
        if (tokens, channels) in plan.flex:
            found.append(Contender(f"flex_attention {size}", _flex(options), options))
    options = plan.options(plan.blocks[0], tokens)
    build = _original(original_module, options)
    return [*found, Contender("original", build, options, torch.float32)]


def _exact(backend: SDPBackend) -> Callable[[Inputs, Direction], Attend]:
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(query, key, value)

    def build(inputs: Inputs, direction: Direction) -> Attend:
        try:
            attend_once(attend, inputs, direction, torch.ones_like(inputs[2]))
        except RuntimeError as error:
            raise CannotRunError(first_sentence(error)) from None
        return attend

    return build


def _xformers(inputs: Inputs, direction: Direction) -> Attend:
    method = next(one for one in methods() if one.label == "xformers")
    return attend_with(method, inputs, direction)


def _mra(options: dict[str, int]) -> Callable[[Inputs, Direction], Attend]:
    def build(_: Inputs, __: Direction) -> Attend:
        # By name, so that nothing else than the kernels is ever measured for them. What goes
        # wrong in them is an error, not a case that can't run.
        return build_attention("mra", **options, impl="triton")

    return build


def _flex(options: dict[str, int]) -> Callable[[Inputs, Direction], Attend]:
    def build(inputs: Inputs, direction: Direction) -> Attend:
        attend = flex_attention_on_mra_blocks(*inputs, **options)
        try:
            attend_once(attend, inputs, direction, torch.ones_like(inputs[2]))
        except Exception as error:  # whatever a compiler may say
            raise CannotRunError(first_sentence(error)) from None
        return attend

    return build


def _original(
    module_name: str | None, options: dict[str, int]
) -> Callable[[Inputs, Direction], Attend]:
    """The original extension, by way of a module of the user's, see ``--original-module``."""

    def build(inputs: Inputs, _: Direction) -> Attend:
        if module_name is None:
            raise CannotRunError("no module of it was named (--original-module)")
        blocks = -(-inputs[0].shape[2] // options["block_size"])
        try:
            function = importlib.import_module(module_name).attend
        except (ImportError, AttributeError, OSError) as error:
            raise CannotRunError(first_sentence(error)) from None

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            num_blocks = options["block_per_row"] * blocks
            out: Tensor = function(
                query, key, value, block_size=options["block_size"], num_blocks=num_blocks
            )
            return out

        return attend

    return build
