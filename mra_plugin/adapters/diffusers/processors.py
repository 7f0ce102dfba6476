"""Processors of diffusers with another self-attention in them.

A layer's processor projects, normalizes and rotates in its family's own way, and then calls
PyTorch's ``scaled_dot_product_attention`` or diffusers' ``dispatch_attention_fn``. That one call is
what is taken over, in a copy of the processor whose code looks the two names up elsewhere: nothing
of diffusers or PyTorch is changed, and torch.compile sees plain functions.
"""

from __future__ import annotations

import copy
import functools
import inspect
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, cast

from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn

from .layer_attention import LayerAttention


class _Redirected:
    """What copies are instances of, beside the class of their processor."""


def can_redirect(processor: object) -> bool:
    """Whether a processor attends by one of the two calls, or is a copy of one that did.

    Its tokens have the name that they have throughout diffusers, or nothing is known of them.
    """
    if isinstance(processor, _Redirected):
        return True
    function = type(processor).__call__
    if not isinstance(function, FunctionType) or not _names_of_calls(function):
        return False
    return "hidden_states" in inspect.signature(function).parameters


def redirect(processor: Any, attention: LayerAttention) -> Any:
    """A copy of a processor that hands its attention to a layer's.

    Args:
        processor: one that `can_redirect` says can be.
        attention: of the layer that it is for.

    Returns:
        An instance of a class of its own that derives from the processor's; parameters are shared.
    """
    kind = type(processor)
    function = _redirected(cast(FunctionType, kind.__call__), attention)
    names = tuple(inspect.signature(function).parameters)

    # Layers look at the signature, to hand on what a processor takes.
    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names[1:], args, strict=False)), **kwargs}
        attention.note_tokens(given.get("hidden_states"), given.get("encoder_hidden_states"))
        return function(self, *args, **kwargs)

    def reduce(self: Any) -> Any:
        return redirect, (processor, attention)  # copies have copies of both

    members = {"__call__": call, "__reduce__": reduce, "__module__": kind.__module__}
    made = copy.copy(processor)
    made.__class__ = type(kind.__name__, (_Redirected, kind), members)
    return made


def _redirected(function: FunctionType, attention: LayerAttention) -> FunctionType:
    """The function, with the two calls looked up in an attention."""
    replaced: dict[str, Any] = {
        name: attention.dispatched
        if function.__globals__[name] is dispatch_attention_fn
        else SimpleNamespace(**{**vars(nn.functional), _OF_PYTORCH: attention.attend})
        for name in _names_of_calls(function)
    }
    found = {**function.__globals__, **replaced}
    # By its module's name torch.compile would look all of them up in the module.
    del found["__name__"]
    made = FunctionType(
        function.__code__, found, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


_OF_PYTORCH = "scaled_dot_product_attention"


def _names_of_calls(function: FunctionType) -> list[str]:
    """The global names that lead a function to an attention that can be taken over."""
    used = _names_in(function.__code__)
    return [
        name
        for name in sorted(used & function.__globals__.keys())
        if function.__globals__[name] is dispatch_attention_fn
        or (function.__globals__[name] is nn.functional and _OF_PYTORCH in used)
    ]


def _names_in(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*(_names_in(one) for one in inner))
