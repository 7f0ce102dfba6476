"""An implementation as two PyTorch operators, opaque to tracing, that autograd knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from .options import MRAOptions
from .problem import Problem, empty_gradients, empty_output

Kept = TypeVar("Kept", bound=tuple[Tensor, ...])
Gradients = tuple[Tensor, Tensor, Tensor]

# Operators take numbers and strings only, so options are spelled out.
_OPTIONS = tuple(field.name for field in fields(MRAOptions))
_KINDS = get_type_hints(MRAOptions)
_TYPES = {int: "SymInt", float: "float", bool: "bool", str: "str"}


def _schema_type(kind: Any) -> str:
    """How an operator's schema calls the type of an option."""
    if get_origin(kind) is Literal:
        return "str"
    if NoneType in get_args(kind):
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        return f"{_schema_type(inner)}?"
    return _TYPES[kind]


_PROBLEM = ", ".join(
    (
        "Tensor query, Tensor key, Tensor value, "
        "Tensor? key_padding_mask, Tensor? query_padding_mask",
        *(f"{_schema_type(_KINDS[name])} {name}" for name in _OPTIONS),
        "float scale",
    )
)
# Three tensors, two masks, and the scale beside the options.
_INPUTS = 5 + len(_OPTIONS) + 1


class OperatorPair(Generic[Kept]):
    """The operators ``mra_plugin::{name}_forward`` and ``mra_plugin::{name}_backward``.

    Attributes:
        forward: takes tensors, masks and what `arguments` gives; returns its results.
        backward: takes the gradients of output and log-sum-exp (or None), the results, and what
            the forward was given; returns the gradients of query, key and value.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[[Problem], tuple[Tensor, Tensor, Kept]],
        backward: Callable[[Problem, Tensor, Tensor, Kept, Tensor, Tensor | None], Gradients],
        kept: type[Kept],
        empty_kept: Callable[[Tensor, Tensor, Tensor, Mapping[str, Any]], Kept],
    ) -> None:
        """Registers both operators, with what tracing has to know of them.

        Args:
            name: of the implementation.
            forward: returns output, log-sum-exp, and what its backward needs besides.
            backward: takes these three and the gradients of the first two.
            kept: the NamedTuple of tensors that the forward returns for its backward.
            empty_kept: gives, from query, key, value and the options by name, empty tensors like
                those.
        """
        results = 2 + len(kept.__annotations__)

        def run_forward(*inputs: Any) -> tuple[Tensor, ...]:
            problem = _problem(inputs)
            with torch.autocast(problem.query.device.type, enabled=False):
                out, lse, own = forward(problem)
            return out, lse, *own

        def run_backward(grad_out: Tensor, grad_lse: Tensor | None, *rest: Any) -> Gradients:
            problem = _problem(rest[results:])
            out, lse, *own = rest[:results]
            with torch.autocast(problem.query.device.type, enabled=False):
                return backward(problem, out, lse, kept(*own), grad_out, grad_lse)

        def fake_forward(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Any:
            # While tracing, an option may be a symbol.
            options = dict(zip(_OPTIONS, rest[2:-1], strict=True))
            return *empty_output(query, value), *empty_kept(query, key, value, options)

        def fake_backward(_grad_out: Tensor, _grad_lse: Any, *rest: Any) -> Gradients:
            return empty_gradients(*rest[results : results + 3])

        self.forward = torch.library.custom_op(
            f"mra_plugin::{name}_forward",
            run_forward,
            mutates_args=(),
            schema=f"({_PROBLEM}) -> ({', '.join(['Tensor'] * results)})",
        )
        given = "".join(f", Tensor result_{number}" for number in range(results))
        self.backward = torch.library.custom_op(
            f"mra_plugin::{name}_backward",
            run_backward,
            mutates_args=(),
            schema=(
                f"(Tensor grad_out, Tensor? grad_lse{given}, {_PROBLEM}) -> "
                "(Tensor, Tensor, Tensor)"
            ),
        )
        self.forward.register_fake(fake_forward)
        self.backward.register_fake(fake_backward)
        self.forward.register_autograd(self._differentiate, setup_context=_remember)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        query_padding_mask: Tensor | None,
        options: MRAOptions,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """MRA attention by these operators.

        Args:
            query: [B, H, Nq, D].
            key: [B, H, Nk, D].
            value: [B, H, Nk, Dv].
            key_padding_mask: bool [B, Nk] or None.
            query_padding_mask: bool [B, Nq] or None.
            options: block size, budget, mode, priors, selection.
            scale: factor of the scores.

        Returns:
            Output [B, H, Nq, Dv] in the query's type and the log-sum-exp [B, H, Nq] in the
            accumulation type (-inf where a query attends to nothing).
        """
        tensors = (query, key, value, key_padding_mask, query_padding_mask)
        out, lse, *_ = self.forward(*tensors, *arguments(options, scale))
        return out, lse

    def _differentiate(
        self, ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, *_: None
    ) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # checkpointing gives them once
        tensors, results = saved[:5], saved[5:]
        if grad_out is None:
            grad_out = torch.zeros_like(results[0])
        grads = self.backward(grad_out, grad_lse, *results, *tensors, *ctx.options)
        return (*grads, *(None,) * (_INPUTS - 3))


def arguments(options: MRAOptions, scale: float) -> tuple[Any, ...]:
    """Options and scale as operators take them."""
    return (*(getattr(options, name) for name in _OPTIONS), scale)


def _problem(inputs: tuple[Any, ...]) -> Problem:
    query, key, value, key_mask, query_mask, *settings, scale = inputs
    options = MRAOptions(**dict(zip(_OPTIONS, settings, strict=True)))
    return Problem(query, key, value, key_mask, query_mask, options, scale)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:5], *output)
    ctx.options = inputs[5:]
