"""What an attention backend is, and how the attention that it builds is called."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from .errors import AttentionParameterError
from .names import nearest, quoted


class Attention(Protocol):
    """The call that every built attention answers.

    Padding means the same to all of them: a padded key changes no output; every query is served,
    but for those that ``query_padding_mask`` calls padded, whose output is 0; and a sequence whose
    keys are all padded gives zeros, never NaN. In self-attention without ``query_padding_mask`` the
    queries at padded keys are served as well and change nothing for the others: models read such
    outputs.

    What an attention can do beyond this call, its backend says in `AttentionBackend.serves`.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends.

        Args:
            query: [B, H, Nq, D].
            key: [B, H, Nk, D].
            value: [B, H, Nk, Dv].
            key_padding_mask: bool [B, Nk], True at a real token; None if all are real.
            query_padding_mask: bool [B, Nq], True at a query to serve; None: all are served.
            scale: factor on the logits; None means 1/√D.

        Returns:
            [B, H, Nq, Dv], in the dtype of ``query``.
        """
        ...


class AttentionWithWeights(Attention, Protocol):
    """An attention whose backend serves ``"weights"``."""

    def weights(
        self,
        query: Tensor,
        key: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """The dense matrix that the attention stands for, to look at.

        Args:
            query: [B, H, Nq, D].
            key: [B, H, Nk, D].
            key_padding_mask: as in the call.
            query_padding_mask: as in the call.
            scale: as in the call.

        Returns:
            [B, H, Nq, Nk], in the dtype of ``query``; 0 at padded keys and in padded queries' rows.
            Times ``value`` it is what the call gives, but for what is no product with the values
            (a convolution beside it).
        """
        ...


class AttentionWithBias(Attention, Protocol):
    """An attention whose backend serves ``"bias"``."""

    def biased_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        key_padding_mask: Tensor | None = None,
        query_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attends with something added to the scores, as positions are in some models.

        Args:
            query: [B, H, Nq, D].
            key: [B, H, Nk, D].
            value: [B, H, Nk, Dv].
            bias: to be broadcast to [B, H, Nq, Nk]; added to what ``scale`` makes of the logits,
                and not scaled itself. It may need a gradient.
            key_padding_mask: as in the call.
            query_padding_mask: as in the call.
            scale: as in the call.

        Returns:
            [B, H, Nq, Dv], in the dtype of ``query``.
        """
        ...


class AttentionWithWindows(Attention, Protocol):
    """An attention whose backend serves ``"window"``."""

    def local_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        reach: int,
        scale: float | None,
    ) -> Tensor:
        """Exact attention to the keys near each query, for a model's sliding-window layers.

        Args:
            query: [B, H, N, D].
            key: [B, H, N, D].
            value: [B, H, N, Dv].
            key_padding_mask: bool [B, N], True at a real token; None if all are real.
            reach: how many positions to each side a query sees.
            scale: factor on the logits; None means 1/√D.

        Returns:
            [B, H, N, Dv], in the dtype of ``query``.
        """
        ...


class AttentionWithExactKeys(Attention, Protocol):
    """An attention whose backend serves ``"exact_keys"``."""

    def with_exact_keys(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        exact_key: Tensor,
        exact_value: Tensor,
        key_padding_mask: Tensor | None = None,
        exact_padding_mask: Tensor | None = None,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """The attention to some keys, and exactly to others, in one softmax.

        For keys that belong to no block of the others and matter to every query: text beside a
        picture, class tokens.

        Args:
            query: [B, H, Nq, D].
            key: [B, H, Nk, D].
            value: [B, H, Nk, Dv].
            exact_key: [B, H, Ne, D].
            exact_value: [B, H, Ne, Dv].
            key_padding_mask: bool [B, Nk], True at a real token; None if all are real.
            exact_padding_mask: bool [B, Ne], likewise.
            scale: factor on the logits; None means 1/√D.

        Returns:
            [B, H, Nq, Dv], in the dtype of ``query``.
        """
        ...


SERVICES: Mapping[str, str] = {
    "weights": "has the method `AttentionWithWeights.weights`, so that models can give out their "
    "attention matrices",
    "window": "has the method `AttentionWithWindows.local_attention`, which serves sliding-window "
    "layers in place of the models' own way, as where sequences are split among processes",
    "bias": "has the method `AttentionWithBias.biased_attention`, which adds a bias to the "
    "scores, for models whose positions are one",
    "budget": "takes the parameter ``block_per_row``, exact blocks per block of queries, and is "
    "exact where they cover all keys; comparisons set it",
    "exact_keys": "has the method `AttentionWithExactKeys.with_exact_keys`, so that text beside a "
    "picture, and class tokens, are seen exactly",
}
"""The words that `AttentionBackend.serves` may hold, and what each promises of the attention."""


def nothing_against_it(*_: object) -> None:
    """The answer of a backend that runs anywhere and serves anything."""


@dataclass(frozen=True)
class AttentionBackend:
    """A way to compute attention, as a plugin offers it.

    Attributes:
        name: what users ask for it by.
        build: class or function that takes the backend's parameters by keyword and returns an
            `Attention` (an ``nn.Module`` where there are weights).
        summary: one line for listings.
        why_unavailable: returns why the backend can't run on this machine, or None if it can.
            Asked by every listing and before every build, so it should be quick.
        why_unsupported: takes (query, key, value) and returns why the backend can't serve them,
            or None if it can. For callers that want to know before they call; the attention
            itself still has to refuse what it can't serve.
        serves: what the attention can do beyond the plain call, in words of `SERVICES`; any
            iterable of them is taken.

    Raises:
        TypeError: a field has the wrong type, or ``build`` is the attention instead of what
            builds it.
        ValueError: ``name`` is empty or has white space in it, or ``serves`` holds an unknown
            word.
    """

    name: str
    build: Callable[..., Attention]
    summary: str = ""
    why_unavailable: Callable[[], str | None] = nothing_against_it
    why_unsupported: Callable[[Tensor, Tensor, Tensor], str | None] = nothing_against_it
    serves: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuses what would only fail later, in some user's hands."""
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a str, got {self.name!r}")
        if not self.name or self.name.split() != [self.name]:
            raise ValueError(f"name must be a word without white space, got {self.name!r}")
        if not isinstance(self.summary, str):
            raise TypeError(f"summary must be a str, got {self.summary!r}")
        for field in ("build", "why_unavailable", "why_unsupported"):
            if not callable(getattr(self, field)):
                raise TypeError(f"{field} must be callable, got {getattr(self, field)!r}")
        if next(iter(_signature(self.build).parameters), None) == "query":
            raise TypeError(
                f"build must return the attention, but {self.build!r} takes a query: it looks like "
                "the attention itself; give a class or function that returns it"
            )
        object.__setattr__(self, "serves", checked_services(self.serves))

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What ``build`` accepts by keyword, by name, with defaults."""
        return {
            name: parameter
            for name, parameter in _signature(self.build).parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }

    def check_parameters(self, params: Mapping[str, Any]) -> None:
        """Raises AttentionParameterError if ``build`` does not take exactly these names."""
        accepted = self.parameters
        takes = f"it takes {quoted(accepted)}" if accepted else "it takes none"
        open_ended = any(
            parameter.kind is parameter.VAR_KEYWORD
            for parameter in _signature(self.build).parameters.values()
        )
        for name in params:
            if name not in accepted and not open_ended:
                raise AttentionParameterError(
                    f"attention {self.name!r} has no parameter {name!r}"
                    f"{nearest(name, accepted)}; {takes}"
                )
        for name, parameter in accepted.items():
            if parameter.default is parameter.empty and name not in params:
                raise AttentionParameterError(
                    f"attention {self.name!r} needs the parameter {name!r}; {takes}"
                )


def checked_services(words: Iterable[str]) -> frozenset[str]:
    """The words as a set, if all of them are known.

    Raises:
        TypeError: it is no iterable of str, or it is a str itself.
        ValueError: a word is unknown; the message lists those of `SERVICES`.
    """
    # A str is an iterable of str as well: its letters.
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise TypeError(f"serves must be a set of words, got {words!r}")
    found = frozenset(words)
    for word in found:
        if not isinstance(word, str):
            raise TypeError(f"serves must hold words, got {word!r} in it")
        if word not in SERVICES:
            raise ValueError(
                f"serves must hold known words, got {word!r}{nearest(word, SERVICES)}; "
                f"there are {quoted(SERVICES)}"
            )
    return found


def _signature(build: Callable[..., Attention]) -> inspect.Signature:
    # A module without a constructor of its own shows nn.Module's catch-all (*args, **kwargs),
    # which accepts nothing.
    if isinstance(build, type) and (
        inspect.getattr_static(build, "__init__") is nn.Module.__init__
    ):
        return inspect.Signature()
    try:
        return inspect.signature(build)
    except ValueError:
        raise TypeError(
            f"build must have a signature to read its parameters from, {build!r} has none; "
            "wrap it in a function"
        ) from None
