"""The laws for backends: ours keep them, and each is broken by an attention that breaks it."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from mra_plugin import testing
from mra_plugin.ops.local_attention import local_attention
from mra_plugin.registry import (
    SERVICES,
    api,
    available_attention,
    build_attention,
    get_attention,
    register_attention,
)
from mra_plugin.registry.host import Registry

BACKENDS: list[tuple[str, dict[str, Any]]] = [
    ("sdpa", {}),
    ("mra", {}),
    ("mra", {"block_size": 8, "block_per_row": 2}),
    ("mra", {"block_size": 16, "block_per_row": 1, "approx_mode": "sparse"}),
    ("mra", {"block_size": 8, "block_per_row": 2, "selection": "per_row"}),
    ("mra", {"block_size": 8, "block_per_row": 1, "initial_prior_diagonal_n_blocks": 1}),
    ("mra", {"block_size": 8, "block_per_row": 1, "impl": "reference"}),
    ("mra", {"preset": "close"}),
    ("mra", {"preset": "close", "block_per_row": 1, "salient_keys": 3, "exact_up_to": 30}),
    ("nystrom", {}),
    ("nystrom", {"num_landmarks": 8, "pinv_iterations": 2}),
    ("ulysses", {"inner": "mra", "block_size": 8}),
    ("ulysses", {"inner": "sdpa"}),
]


@pytest.fixture
def _alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("name", "params"), BACKENDS, ids=str)
@pytest.mark.usefixtures("_alone")
def test_backends_keep_the_laws(name: str, params: dict[str, Any]) -> None:
    testing.check_backend(name, **params)


def test_every_backend_that_runs_here_is_checked() -> None:
    ours = get_attention("sdpa").build.__module__.partition(".")[0]
    runs = {
        info.name
        for info in available_attention()
        if info.status == "ok" and get_attention(info.name).build.__module__.startswith(ours)
    }
    assert {name for name, _ in BACKENDS} == runs - {"xformers"}


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sdpa", "xformers", "mra", "nystrom"])
def test_backends_keep_the_laws_on_a_gpu(name: str) -> None:
    if reason := get_attention(name).why_unavailable():
        pytest.skip(reason)
    with torch.device("cuda"):
        testing.check_backend(name)


def test_what_is_exact() -> None:
    attention = build_attention("sdpa")
    testing.check_attention(attention, serves=["weights"], exact=True)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("nystrom", {"num_landmarks": 8}),
        ("mra", {"block_size": 8, "block_per_row": 2}),
        ("mra", {"block_size": 8, "num_blocks": 9, "approx_mode": "sparse"}),
    ],
)
def test_padding_may_lie_anywhere(name: str, params: dict[str, Any]) -> None:
    attention = build_attention(name, **params)
    testing.check_attention(attention, serves=["weights"], padding_anywhere=True)


def test_the_sample_plugin() -> None:
    path = Path(__file__).parents[1] / "examples" / "own_backend" / "mean_attention.py"
    spec = importlib.util.spec_from_file_location("mean_attention", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    testing.check_attention(module.MeanAttention(), padding_anywhere=True)


class Exact:
    """Right in everything, to be broken in one thing."""

    def __init__(self) -> None:
        self.attention = build_attention("sdpa")

    def __call__(self, *inputs: Tensor | None, **options: Any) -> Tensor:
        return self.attention(*inputs, **options)

    def weights(self, *inputs: Tensor | None, **options: Any) -> Tensor:
        return self.attention.weights(*inputs, **options)

    def biased_attention(self, *inputs: Tensor | None, **options: Any) -> Tensor:
        return self.attention.biased_attention(*inputs, **options)

    def local_attention(self, *inputs: Any) -> Tensor:
        return local_attention(*inputs)

    def with_exact_keys(self, query, key, value, more_key, more_value, *masks, scale=None):
        real = [x.new_ones(len(x), x.shape[2], dtype=torch.bool) for x in (key, more_key)]
        real = [own if mask is None else mask for own, mask in zip(real, masks or real)]  # noqa: B905
        keys, values = torch.cat([key, more_key], 2), torch.cat([value, more_value], 2)
        return self.attention(query, keys, values, torch.cat(real, 1), scale=scale)


class ValuesCut(Exact):
    def __call__(self, query, key, value, *masks, **options):
        return super().__call__(query, key, value[..., :4], *masks, **options)


class InDouble(Exact):
    def __call__(self, query, key, value, *masks, **options):
        return super().__call__(query.double(), key.double(), value.double(), *masks, **options)


class ChangesItsInput(Exact):
    def __call__(self, query, key, value, *masks, **options):
        out = super().__call__(query, key, value, *masks, **options)
        with torch.no_grad():
            query.mul_(1.5)
        return out


class ReadsMemoryInOrder(Exact):
    def __call__(self, query, key, value, *masks, **options):
        if not value.is_contiguous():
            value = value.as_strided(value.shape, torch.empty(value.shape).stride())
        return super().__call__(query, key, value, *masks, **options)


class OtherScale(Exact):
    def __call__(self, query, key, value, *masks, scale=None):
        return super().__call__(query, key, value, *masks, scale=scale or 0.24)


class MixesRows(Exact):
    def __call__(self, query, key, value, *masks, **options):
        out = super().__call__(query, key, value, *masks, **options)
        return out + 0.01 * out.mean(0, keepdim=True)


class HeedsNoMask(Exact):
    def __call__(self, query, key, value, key_mask=None, query_mask=None, **options):
        out = super().__call__(query, key, value, **options)
        return out if query_mask is None else out * query_mask[:, None, :, None]


class LeavesOutPadding(Exact):
    def __call__(self, query, key, value, key_mask=None, query_mask=None, **options):
        if query_mask is None and query.shape[2] == key.shape[2]:
            query_mask = key_mask
        return super().__call__(query, key, value, key_mask, query_mask, **options)


class HeedsNoQueryMask(Exact):
    def __call__(self, query, key, value, key_mask=None, query_mask=None, **options):
        return super().__call__(query, key, value, key_mask, **options)


class TakesTheKeysMaskForTheQueries(Exact):
    """Where the lengths differ, as far as it goes."""

    def __call__(self, query, key, value, key_mask=None, query_mask=None, **options):
        if query_mask is None and key_mask is not None and query.shape[2] < key_mask.shape[1]:
            query_mask = key_mask[:, : query.shape[2]]
        return super().__call__(query, key, value, key_mask, query_mask, **options)


class CountsPadding(Exact):
    """Its temperature depends on the length with padding."""

    def __call__(self, query, key, value, *masks, **options):
        factor = 1 + key.shape[2] / 1000
        return super().__call__(query * factor, key, value, *masks, **options)


class ReadsTheLastKey(Exact):
    """Whatever it is."""

    def __call__(self, query, key, value, *masks, **options):
        out = super().__call__(query, key, value, *masks, **options)
        return out + 0.001 * value[:, :, -1:] * (out != 0)


class AttendsToPaddingAlone(Exact):
    """Where nothing is real it takes everything for real."""

    def __call__(self, query, key, value, key_mask=None, query_mask=None, **options):
        if key_mask is not None:
            key_mask = key_mask | ~key_mask.any(-1, keepdim=True)
        return super().__call__(query, key, value, key_mask, query_mask, **options)


class NotANumber(Exact):
    def __call__(self, query, key, value, key_mask=None, query_mask=None, **options):
        out = super().__call__(query, key, value, key_mask, query_mask, **options)
        if key_mask is None:
            return out
        return out.masked_fill(~key_mask.any(-1)[:, None, None, None], float("nan"))


class GradientAtNothing(Exact):
    """Its values are right, its gradients are those of all keys."""

    def __call__(self, query, key, value, *masks, **options):
        out = super().__call__(query, key, value, *masks, **options)
        leak = value.mean(2, keepdim=True)
        return out + leak - leak.detach()


class InfiniteGradient(Exact):
    def __call__(self, query, key, value, *masks, **options):
        zero = (value - value.detach()).sum(-1).sum(-1)[..., None, None]
        return super().__call__(query, key, value, *masks, **options) + zero.sqrt()


class LeavesOutTheFirstKey(Exact):
    def __call__(self, query, key, value, *masks, **options):
        value = torch.cat([0.9 * value[:, :, :1], value[:, :, 1:]], 2)
        return super().__call__(query, key, value, *masks, **options)


class WeightsOfAnotherScale(Exact):
    def weights(self, query, key, *masks, scale=None):
        return super().weights(query, key, *masks)


class WeightsAtPadding(Exact):
    """No product with values of zero would tell."""

    def weights(self, query, key, key_mask=None, query_mask=None, *, scale=None):
        out = super().weights(query, key, key_mask, query_mask, scale=scale)
        return out.masked_fill(~key_mask[:, None, None, :], 1e-6)


class WeightsOfOneHead(Exact):
    def weights(self, *inputs, **options):
        return super().weights(*inputs, **options)[:, :1]


class BiasIsScaled(Exact):
    def biased_attention(self, query, key, value, bias, *masks, scale=None):
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        return super().biased_attention(query, key, value, bias * factor, *masks, scale=scale)


class BiasWithoutGradient(Exact):
    def biased_attention(self, query, key, value, bias, *masks, **options):
        bias = bias.detach() + 0 * bias
        return super().biased_attention(query, key, value, bias, *masks, **options)


class WindowTooWide(Exact):
    def local_attention(self, query, key, value, mask, reach, scale):
        return local_attention(query, key, value, mask, reach + 1, scale)


class WindowSeesPadding(Exact):
    def local_attention(self, query, key, value, mask, reach, scale):
        return local_attention(query, key, value, None, reach, scale)


class ExactKeysAtPadding(Exact):
    def with_exact_keys(self, *inputs, scale=None):
        return super().with_exact_keys(*inputs[:5], scale=scale)


class ExactKeysApart(Exact):
    """Half of it for each kind, where both are there."""

    def with_exact_keys(self, query, key, value, more_key, more_value, *masks, scale=None):
        if masks:
            both = (query, key, value, more_key, more_value)
            return super().with_exact_keys(*both, *masks, scale=scale)
        own, more = ((key, value), (more_key, more_value))
        return 0.7 * (self(query, *own, scale=scale) + self(query, *more, scale=scale))


BROKEN = [
    (ValuesCut, testing.check_output, "shape"),
    (InDouble, testing.check_output, "dtype"),
    (ChangesItsInput, testing.check_output, "leave its inputs"),
    (ReadsMemoryInOrder, testing.check_output, "strides"),
    (OtherScale, testing.check_default_scale, "1/√D"),
    (MixesRows, testing.check_rows_are_independent, "others in the batch"),
    (HeedsNoMask, testing.check_padding_changes_nothing, "holds behind"),
    (
        LeavesOutPadding,
        testing.check_padding_changes_nothing,
        "every query must be served",
    ),
    (HeedsNoQueryMask, testing.check_padding_changes_nothing, "query_padding_mask says is padded"),
    (TakesTheKeysMaskForTheQueries, testing.check_padding_changes_nothing, "where lengths differ"),
    (CountsPadding, testing.check_padding_changes_nothing, "behind must change no real token"),
    (ReadsTheLastKey, testing.check_padding_changes_nothing, "holds behind"),
    (AttendsToPaddingAlone, testing.check_nothing_real_gives_zeros, "must give zeros"),
    (NotANumber, testing.check_nothing_real_gives_zeros, "must give zeros, got up to nan"),
    (GradientAtNothing, testing.check_nothing_real_gives_zeros, "no gradient"),
    (GradientAtNothing, testing.check_gradients, "0 at padding, that of value"),
    (InfiniteGradient, testing.check_gradients, "finite, that of value"),
    (LeavesOutTheFirstKey, testing.check_full_budget_is_exact, "softmax over all real keys"),
    (WeightsOfAnotherScale, testing.check_weights_match, "times the values"),
    (WeightsAtPadding, testing.check_weights_match, "0 at padded keys"),
    (WeightsOfOneHead, testing.check_weights_match, r"\[2, 2, 45, 45\]"),
    (BiasIsScaled, testing.check_bias_is_added, "not be scaled"),
    (BiasWithoutGradient, testing.check_bias_is_added, "have a gradient"),
    (WindowTooWide, testing.check_windows_match, "window of 3"),
    (WindowSeesPadding, testing.check_windows_match, "window of 3"),
    (ExactKeysAtPadding, testing.check_exact_keys_are_exact, "no other key"),
    (ExactKeysApart, testing.check_exact_keys_are_exact, "share one softmax"),
]


def test_what_is_broken_below_is_right_but_for_that() -> None:
    testing.check_attention(Exact(), serves=SERVICES, exact=True)


@pytest.mark.parametrize(("broken", "check", "words"), BROKEN)
def test_each_law_can_be_broken(
    broken: Callable[[], Any], check: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(AssertionError, match=words):
        check(broken())
    with pytest.raises(AssertionError):
        testing.check_attention(broken(), serves=SERVICES, exact=True)


def test_every_law_is_broken_by_somebody() -> None:
    laws = {getattr(testing, name) for name in testing.__all__}
    assert {check for _, check, _ in BROKEN} == laws - {
        testing.check_attention,
        testing.check_backend,
    }


class ByPosition(Exact):
    """Keys at even positions count more: padding behind is nothing to it, padding in front is."""

    def __call__(self, query, key, value, *masks, **options):
        louder = 1 + 0.5 * (torch.arange(key.shape[2]) % 2 == 0)[:, None]
        return super().__call__(query, key * louder, value, *masks, **options)


def test_padding_elsewhere_is_for_those_that_promise_it() -> None:
    testing.check_attention(ByPosition())
    with pytest.raises(AssertionError, match="in front must change no real token"):
        testing.check_padding_changes_nothing(ByPosition(), anywhere=True)


@pytest.mark.parametrize("promise", ["padding_anywhere", "exact"])
def test_who_promises_it_is_held_to_it(promise: str) -> None:
    with pytest.raises(AssertionError, match="in front must change no real token"):
        testing.check_attention(ByPosition(), **{promise: True})


def test_a_backend_is_held_to_what_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_registry", Registry())  # what is registered here is gone afterwards
    register_attention("law-test-plain")(Exact)
    testing.check_backend("law-test-plain")
    register_attention("law-test-weights", serves={"weights"})(WeightsAtPadding)
    with pytest.raises(AssertionError, match="0 at padded keys"):
        testing.check_backend("law-test-weights")

    @register_attention("law-test-budget", serves={"budget"})
    class Budget(LeavesOutTheFirstKey):
        def __init__(self, block_per_row: int = 1) -> None:
            super().__init__()

    with pytest.raises(AssertionError, match="budget at the most"):
        testing.check_backend("law-test-budget")
    assert set(SERVICES) == {"weights", "bias", "window", "budget", "exact_keys"}
