"""The laws that every attention backend keeps, for the tests of whoever offers one.

Each function calls an attention on small random inputs and raises AssertionError if it breaks the
law that the function is named after; what the attention itself raises passes through.
`check_backend` runs those that apply to a backend of the registry::

    from mra_plugin.testing import check_backend

    def test_mean():
        check_backend("mean")

Inputs have PyTorch's default dtype and lie on its default device, so ``with
torch.device("cuda"):`` around a check runs it on a GPU. Calls are as
`mra_plugin.registry.Attention` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mra_plugin.registry import (
    Attention,
    AttentionWithBias,
    AttentionWithExactKeys,
    AttentionWithWeights,
    AttentionWithWindows,
    build_attention,
    get_attention,
)

__all__ = [
    "check_attention",
    "check_backend",
    "check_bias_is_added",
    "check_default_scale",
    "check_exact_keys_are_exact",
    "check_full_budget_is_exact",
    "check_gradients",
    "check_nothing_real_gives_zeros",
    "check_output",
    "check_padding_changes_nothing",
    "check_rows_are_independent",
    "check_weights_match",
    "check_windows_match",
]

_BATCH, _HEADS, _CHANNELS, _VALUE_CHANNELS = 2, 2, 16, 8
_TOKENS, _OTHER_TOKENS = 45, 70
# A budget that covers every block of the inputs here.
_FULL_BUDGET = 1000
# How far rounding may go, which is far less than a token too many or too few would.
_RTOL, _ATOL = 1e-3, 1e-4


def check_backend(name: str, /, **params: Any) -> None:
    """Checks a backend of the registry: its attention, and all that it says it serves.

    One that serves ``"budget"`` is built a second time with a budget that covers everything, which
    has to be exact. For more promises than a backend can declare, give what it builds to
    `check_attention`.

    Args:
        name: of the backend.
        **params: its parameters.

    Raises:
        AssertionError: it breaks a law; the message says which.
        ValueError: as `mra_plugin.registry.build_attention`.
    """
    backend = get_attention(name)
    check_attention(build_attention(name, **params), serves=backend.serves)
    if "budget" in backend.serves:
        whole = build_attention(name, **{**params, "block_per_row": _FULL_BUDGET})
        check_full_budget_is_exact(whole)


def check_attention(
    attention: Attention,
    *,
    serves: Iterable[str] = (),
    exact: bool = False,
    padding_anywhere: bool = False,
) -> None:
    """Checks an attention: what all promise, and what this one does in addition.

    Args:
        attention: to check.
        serves: what its backend declares, words of `mra_plugin.registry.SERVICES`.
        exact: it is exact softmax attention, which no padding changes wherever it lies.
        padding_anywhere: an approximation that no padding changes wherever it lies, not only
            behind the real tokens.

    Raises:
        AssertionError: it breaks a law; the message says which.
    """
    check_output(attention)
    check_default_scale(attention)
    check_rows_are_independent(attention)
    check_padding_changes_nothing(attention, anywhere=exact or padding_anywhere)
    check_nothing_real_gives_zeros(attention)
    check_gradients(attention)
    if exact:
        check_full_budget_is_exact(attention)
    for word in serves:
        if check := _SERVED.get(word):
            check(attention)


def check_output(attention: Attention) -> None:
    """Shape and dtype of the output, for any lengths and strides; inputs are left as they are.

    Raises:
        AssertionError: the output is wrong in one of them, or an input was changed.
    """
    for queries, keys in ((_TOKENS, _TOKENS), (_TOKENS, _OTHER_TOKENS), (_TOKENS, 1), (1, 1)):
        inputs = _inputs(queries, keys)
        before = [x.clone() for x in inputs]
        out = attention(*inputs)
        shape = (_BATCH, _HEADS, queries, _VALUE_CHANNELS)
        if out.shape != shape:
            raise AssertionError(
                f"the output must have the shape [B, H, Nq, Dv] = {list(shape)}, "
                f"got {list(out.shape)}"
            )
        if out.dtype != inputs[0].dtype:
            raise AssertionError(
                f"the output must have the query's dtype {inputs[0].dtype}, got {out.dtype}"
            )
        if not all(torch.equal(x, old) for x, old in zip(inputs, before, strict=True)):
            raise AssertionError("the attention must leave its inputs as they are, and changed one")
        _check_same(
            attention(*(x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs)),
            out,
            "the strides of the inputs must not matter",
        )


def check_default_scale(attention: Attention) -> None:
    """Without a scale it is 1/√D.

    Raises:
        AssertionError: it is another one.
    """
    inputs = _inputs()
    scaled = attention(*inputs, scale=1 / math.sqrt(_CHANNELS))
    _check_same(attention(*inputs), scaled, "scale=None must mean 1/√D")


def check_rows_are_independent(attention: Attention) -> None:
    """A sequence's result does not depend on the others in the batch.

    Raises:
        AssertionError: it does.
    """
    query, key, value = _inputs(batch=3)
    mask = torch.arange(_TOKENS) < torch.tensor([[_TOKENS], [20], [1]])
    together = attention(query, key, value, mask)
    for row in range(3):
        one = slice(row, row + 1)
        alone = attention(query[one], key[one], value[one], mask[one])
        law = "a sequence's result must not depend on the others in the batch"
        _check_same(together[one], alone, law)


def check_padding_changes_nothing(attention: Attention, *, anywhere: bool = False) -> None:
    """Padding changes no real token: how much there is behind them, and what it holds anywhere.

    Queries at padding are served like any other, and give 0 only where a mask of their own calls
    them padded.

    Args:
        attention: to check.
        anywhere: also padding in front of real tokens and in between has to leave them what they
            would get alone. That is more than an approximation by blocks of positions can promise.

    Raises:
        AssertionError: padding changes a real token, a query at padding is not served, or one that
            its mask calls padded is.
    """
    inputs = _inputs()
    alone = attention(*inputs)
    for longest in (_TOKENS + 1, _TOKENS + 19, 3 * _TOKENS):
        behind = torch.arange(_TOKENS)
        between = (torch.arange(_TOKENS) * (longest - 1) / (_TOKENS - 1)).long()
        places = {"behind": behind, "in front": behind + longest - _TOKENS, "in between": between}
        for where, at in places.items():
            mask = torch.zeros(_BATCH, longest, dtype=torch.bool)
            mask[:, at] = True
            padded, other = (
                _call(attention, [_amid_garbage(x, at, longest, seed) for x in inputs], mask)
                for seed in (1, 2)
            )
            real = (padded[:, :, at], other[:, :, at])
            _check_same(*real, f"what padding holds {where} must change nothing")
            unserved = (padded == 0).all(-1)  # [B, H, N]
            if unserved.any():
                raise AssertionError(f"every query must be served, one {where} gives 0")
            if where == "behind" or anywhere:
                law = f"padding {where} must change no real token"
                _check_same(padded[:, :, at], alone, law)
    _check_masks_of_two_sequences(attention)


def _check_masks_of_two_sequences(attention: Attention) -> None:
    """The law for padding behind, where queries and keys have masks of their own."""
    query, key, value = _inputs(_OTHER_TOKENS, _TOKENS)
    alone = attention(query, key, value)
    for most_queries, most_keys in ((80, 90), (80, 80)):
        longer = (
            _amid_garbage(query, torch.arange(_OTHER_TOKENS), most_queries, 1),
            _amid_garbage(key, torch.arange(_TOKENS), most_keys, 1),
            _amid_garbage(value, torch.arange(_TOKENS), most_keys, 1),
        )
        key_mask = (torch.arange(most_keys) < _TOKENS).expand(_BATCH, -1)
        query_mask = (torch.arange(most_queries) < _OTHER_TOKENS).expand(_BATCH, -1)
        padded = attention(*longer, key_mask, query_mask)
        if padded[:, :, _OTHER_TOKENS:].any():
            raise AssertionError("a query that query_padding_mask says is padded must give 0")
        law = "padding behind must change no real token, where queries have a mask of their own"
        _check_same(padded[:, :, :_OTHER_TOKENS], alone, law)
    # Of different lengths, and without a mask of their own, all queries are real.
    padded = attention(query, *longer[1:], key_mask)  # the last: 70 queries, 80 keys
    law = "without query_padding_mask all queries must be real where lengths differ"
    _check_same(padded, alone, law)


def check_nothing_real_gives_zeros(attention: Attention) -> None:
    """A sequence whose keys are all padding gives zeros and no gradient, never NaN.

    Raises:
        AssertionError: it gives something else.
    """
    for keys in (_TOKENS, _OTHER_TOKENS):
        inputs = [x.requires_grad_() for x in _inputs(_TOKENS, keys)]
        mask = torch.zeros(_BATCH, keys, dtype=torch.bool)
        mask[0, :3] = True
        out = _call(attention, inputs, mask)[1]
        if not bool((out == 0).all()):
            raise AssertionError(
                f"a sequence without a real key must give zeros, got up to {out.abs().max():.3g}"
            )
        for name, gradient in _gradients(out, inputs).items():
            if not bool((gradient == 0).all()):
                raise AssertionError(
                    f"a sequence without a real key must give no gradient, got one for {name}"
                )


def check_gradients(attention: Attention) -> None:
    """Gradients are finite, and those of keys and values are 0 at padding.

    Raises:
        AssertionError: one is not.
    """
    inputs = [x.requires_grad_() for x in _inputs()]
    mask = torch.arange(_TOKENS) < torch.tensor([[_TOKENS], [20]])
    for name, gradient in _gradients(_call(attention, inputs, mask), inputs).items():
        if not bool(gradient.isfinite().all()):
            raise AssertionError(f"gradients must be finite, that of {name} is not")
        if name != "query" and gradient.masked_fill(mask[:, None, :, None], 0).any():
            raise AssertionError(f"gradients must be 0 at padding, that of {name} is not")


def check_full_budget_is_exact(attention: Attention) -> None:
    """With a budget that covers everything, an approximation is exact softmax attention.

    Args:
        attention: an exact one, or an approximation whose budget covers 70 queries and keys.

    Raises:
        AssertionError: it is not.
    """
    law = "with its budget at the most, attention must be the softmax over all real keys"
    for queries, keys in ((_OTHER_TOKENS, _OTHER_TOKENS), (_TOKENS, _OTHER_TOKENS)):
        query, key, value = _inputs(queries, keys)
        mask = torch.arange(keys) < torch.tensor([[keys], [20]])
        for scale in (None, 0.5):
            expected = _softmax(query, key, mask[:, None, None, :], scale) @ value.double()
            found = attention(query, key, value, mask, scale=scale)
            _check_same(found, expected.to(found.dtype), law)


def check_weights_match(attention: AttentionWithWeights) -> None:
    """The dense matrix times the values is what the call gives, and 0 at padding.

    Raises:
        AssertionError: it is not.
    """
    for queries, keys in ((_TOKENS, _TOKENS), (_TOKENS, _OTHER_TOKENS)):
        query, key, value = _inputs(queries, keys)
        mask = torch.arange(keys) < torch.tensor([[keys], [20]])
        for scale in (None, 0.5):
            weights = attention.weights(query, key, mask, scale=scale)
            shape = (_BATCH, _HEADS, queries, keys)
            if weights.shape != shape or weights.dtype != query.dtype:
                raise AssertionError(
                    f"weights must be [B, H, Nq, Nk] = {list(shape)} of {query.dtype}, "
                    f"got {list(weights.shape)} of {weights.dtype}"
                )
            if weights.masked_fill(mask[:, None, None, :], 0).any():
                raise AssertionError("weights must be 0 at padded keys")
            law = "the weights times the values must be what the attention gives"
            _check_same(weights @ value, attention(query, key, value, mask, scale=scale), law)


def check_windows_match(attention: AttentionWithWindows) -> None:
    """Sliding windows are exact attention to the keys within reach.

    Raises:
        AssertionError: they are not.
    """
    query, key, value = _inputs()
    mask = torch.arange(_TOKENS) < torch.tensor([[_TOKENS], [20]])
    distance = (torch.arange(_TOKENS)[:, None] - torch.arange(_TOKENS)).abs()
    for reach, scale, real in ((3, None, mask), (8, 0.5, mask), (3, None, None)):
        seen = (distance <= reach)[None, None]
        if real is not None:
            seen = seen & real[:, None, None, :]
        expected = (_softmax(query, key, seen, scale) @ value.double()).to(query.dtype)
        found = attention.local_attention(query, key, value, real, reach, scale)
        # Queries at padding are nobody's.
        rows = (mask if real is not None else torch.ones_like(mask))[:, None, :, None]
        law = f"a window of {reach} must be exact attention to the keys within reach"
        _check_same(found.masked_fill(~rows, 0), expected.masked_fill(~rows, 0), law)


def check_bias_is_added(attention: AttentionWithBias) -> None:
    """A bias counts as scores do: one that is a product is what longer queries and keys give.

    Of an exact attention that is softmax attention with the bias. Gradients reach the bias.

    Raises:
        AssertionError: it is not.
    """
    query, key, value = _inputs()
    mask = torch.arange(_TOKENS) < torch.tensor([[_TOKENS], [20]])
    of_query = _random(_BATCH, _TOKENS, 4, seed=5)[0, 0]
    of_key = _random(_BATCH, _TOKENS, 4, seed=6)[0, 0]
    shape = (_BATCH, _HEADS, -1, -1)
    for scale, real in ((None, mask), (0.5, mask), (0.5, None)):
        factor = _CHANNELS**-0.5 if scale is None else scale
        longer_query = torch.cat([query * factor, of_query.expand(shape)], -1)
        longer_key = torch.cat([key, of_key.expand(shape)], -1)
        expected = attention(longer_query, longer_key, value, real, scale=1.0)
        bias = (of_query @ of_key.mT).requires_grad_()
        found = attention.biased_attention(query, key, value, bias, real, scale=scale)
        law = "a bias must be added to the scores, and not be scaled"
        _check_same(found.detach(), expected, law)
        found.square().sum().backward()
        if bias.grad is None or not bias.grad.any():
            raise AssertionError("a bias must have a gradient")


def check_exact_keys_are_exact(attention: AttentionWithExactKeys) -> None:
    """Exact keys take their share of one softmax; alone it is exact.

    Raises:
        AssertionError: they do not.
    """
    query, key, value = _inputs()
    _, other_key, other_value = _inputs(_OTHER_TOKENS, _OTHER_TOKENS)
    every = (query, key, value, other_key, other_value)
    nothing = torch.zeros(_BATCH, _OTHER_TOKENS, dtype=torch.bool)
    mask = torch.arange(_OTHER_TOKENS) < torch.tensor([[_OTHER_TOKENS], [20]])
    for scale in (None, 0.5):
        alone = attention.with_exact_keys(*every, nothing[:, :_TOKENS], mask, scale=scale)
        seen = mask[:, None, None, :]
        expected = (_softmax(query, other_key, seen, scale) @ other_value.double()).to(value.dtype)
        _check_same(alone, expected, "where there is no other key, exact keys must be exact")
        without = attention.with_exact_keys(*every, mask[:, :_TOKENS], nothing, scale=scale)
        law = "where all exact keys are padding, they must change nothing"
        _check_same(without, attention(query, key, value, mask[:, :_TOKENS], scale=scale), law)
    # The share of all exact keys, and of all others.
    ones = torch.ones_like(other_value)
    share = attention.with_exact_keys(query, key, 0 * value, other_key, ones)
    rest = attention.with_exact_keys(query, key, ones[:, :, :_TOKENS], other_key, 0 * ones)
    law = "exact keys and the others must share one softmax"
    _check_same(share + rest, torch.ones_like(share), law)
    if not 0 < float(share.mean()) < 1:
        raise AssertionError(f"{law}, exact keys have {float(share.mean()):.3g} of it")


_SERVED: dict[str, Callable[[Any], None]] = {
    "weights": check_weights_match,
    "bias": check_bias_is_added,
    "window": check_windows_match,
    "exact_keys": check_exact_keys_are_exact,
}


def _inputs(
    queries: int = _TOKENS, keys: int = _TOKENS, batch: int = _BATCH
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value; means drift along the sequence, so that no block is like the next."""
    return (
        _random(batch, queries, _CHANNELS, seed=0),
        _random(batch, keys, _CHANNELS, seed=1),
        _random(batch, keys, _VALUE_CHANNELS, seed=2),
    )


def _random(batch: int, tokens: int, channels: int, seed: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "device": "cpu"}
    noise = torch.randn(batch, _HEADS, tokens, channels, **options)
    drift = torch.randn(batch, _HEADS, 1, channels, **options)
    drift = drift * torch.linspace(-1, 1, tokens, device="cpu")[:, None]
    return (noise + drift).to(torch.get_default_device())


def _amid_garbage(x: Tensor, places: Tensor, longest: int, seed: int) -> Tensor:
    """[B, H, longest, D] with the tokens of ``x`` at ``places``, and large numbers elsewhere."""
    out = 100 * _random(len(x), longest, x.shape[-1], seed=seed + 10)
    out[:, :, places] = x
    return out


def _softmax(query: Tensor, key: Tensor, seen: Tensor, scale: float | None) -> Tensor:
    """The matrix of exact attention in float64, 0 where nothing is seen."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    logits = factor * query.double() @ key.double().mT
    return logits.masked_fill(~seen, -math.inf).softmax(-1).nan_to_num(0.0)


def _call(attention: Attention, inputs: list[Tensor], key_padding_mask: Tensor) -> Tensor:
    query, key, value = inputs
    return attention(query, key, value, key_padding_mask)


def _gradients(out: Tensor, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Of query, key and value, for a random cotangent; an attention may take no notice of one."""
    generator = torch.Generator("cpu").manual_seed(3)
    cotangent = torch.randn(out.shape, generator=generator, device="cpu").to(out)
    found = torch.autograd.grad(out, inputs, cotangent, allow_unused=True)
    named = zip(("query", "key", "value"), found, strict=True)
    return {name: one for name, one in named if one is not None}


def _check_same(actual: Tensor, expected: Tensor, law: str) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=_RTOL, atol=_ATOL, msg=lambda found: f"{law}\n{found}"
    )
