"""The implementations of MRA attention: what each serves, and which one a call gets.

The table fails closed: an option that differs from its default and that an implementation does not
list is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from . import eager, native, reference, triton
from .eager.operators import attend as attend_eagerly
from .native.operators import attend as attend_by_native
from .options import MRAOptions
from .triton.operators import attend as attend_by_triton

ImplementationName = Literal["auto", "reference", "eager", "triton", "native"]


def _serves_any_call(*_: object) -> None:
    """The answer of an implementation that takes any device, type and size."""


@dataclass(frozen=True)
class Implementation:
    """A row of the table.

    Attributes:
        name: what ``impl`` calls it.
        serves: the fields of `MRAOptions` that it knows.
        attend: takes query, key, value, their masks, options and scale; returns output and
            log-sum-exp. Light to import: what is heavy is loaded when it runs, so that a first
            call can be traced.
        why_unsupported: takes query, value and options that it knows; returns why it can't serve
            the call, or None.
        automatic_on: types of devices on which ``impl="auto"`` may take it; None means any.
        has_forward_mode: whether derivatives may run forward (torch.func.jvp).
        exact_by_pytorch: whether it leaves a budget that covers everything to PyTorch's own
            attention.
    """

    name: str
    serves: frozenset[str]
    attend: Callable[..., tuple[Tensor, Tensor]]
    why_unsupported: Callable[[Tensor, Tensor, MRAOptions], str | None] = _serves_any_call
    automatic_on: frozenset[str] | None = None
    has_forward_mode: bool = False
    exact_by_pytorch: bool = False

    @property
    def is_automatic(self) -> bool:
        """Whether ``impl="auto"`` may take it on some device."""
        return self.automatic_on is None or bool(self.automatic_on)

    def is_asked(self, impl: str, device: str) -> bool:
        """Whether ``impl`` means it for tensors on a type of device."""
        if impl == "auto":
            return self.automatic_on is None or device in self.automatic_on
        return self.name == impl

    def why_not(self, query: Tensor, value: Tensor, options: MRAOptions) -> str | None:
        """Why it can't serve a call, as a sentence, or None if it can."""
        if unknown := options.unknown_to(self.serves):
            return f'impl="{self.name}" does not know {" and ".join(unknown)}'
        if reason := self.why_unsupported(query, value, options):
            return f'impl="{self.name}" can\'t serve this call: {reason}'
        return None


# In the order in which "auto" asks them.
IMPLEMENTATIONS = (
    Implementation(
        "triton",
        triton.SERVES,
        attend_by_triton,
        triton.why_unsupported,
        automatic_on=frozenset({"cuda"}),
    ),
    Implementation(
        "native",
        native.SERVES,
        attend_by_native,
        native.why_unsupported,
        automatic_on=frozenset({"cpu"}),
        exact_by_pytorch=True,
    ),
    Implementation("eager", eager.SERVES, attend_eagerly, exact_by_pytorch=True),
    Implementation(
        "reference",
        reference.SERVES,
        reference.attend,
        automatic_on=frozenset(),
        has_forward_mode=True,
    ),
)


def check_name(impl: str) -> None:
    """Refuses a name that the table does not have."""
    if impl not in get_args(ImplementationName):
        raise ValueError(f"impl must be one of {get_args(ImplementationName)}, got {impl!r}")


def check_known(impl: str, options: MRAOptions) -> None:
    """Refuses options that no implementation knows which ``impl`` may mean, on any device.

    Raises:
        ValueError: names them.
    """
    meant = [
        one for one in IMPLEMENTATIONS if one.name == impl or (impl == "auto" and one.is_automatic)
    ]
    unknown = sorted((options.unknown_to(one.serves) for one in meant), key=len)
    if all(unknown):
        raise ValueError(f'impl="{impl}" does not know {" and ".join(unknown[0])}')


def select(impl: str, query: Tensor, value: Tensor, options: MRAOptions) -> Implementation:
    """The implementation that serves a call.

    Args:
        impl: one of `ImplementationName`. ``"auto"`` takes the first that serves, never the dense
            reference.
        query: [B, H, Nq, D].
        value: [B, H, Nk, Dv].
        options: of the call.

    Raises:
        ValueError: it can't serve the call, or none can; says why.
    """
    reasons = []
    for one in IMPLEMENTATIONS:
        if one.is_asked(impl, query.device.type):
            reason = one.why_not(query, value, options)
            if reason is None:
                return one
            reasons.append(reason)
    message = "; ".join(reasons)
    if impl == "auto":
        message = f'impl="auto" finds no implementation that serves this call: {message}'
    raise ValueError(message)
