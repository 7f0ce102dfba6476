"""The table of implementations: it fails closed, and every list of options is the dataclass's."""

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from helpers.agreement import HERE
from helpers.attention_calls import random_inputs
from torch import Tensor

import mra_plugin.models.mra.relative as relative
from mra_plugin.backends.mra import MRAAttention
from mra_plugin.ops import MRAOptions, api, exact, implementations, mra_attention
from mra_plugin.ops import mra_attention_weights as weights
from mra_plugin.ops.implementations import IMPLEMENTATIONS, ImplementationName, select
from mra_plugin.ops.options import MRAOptionValues

OPTIONS = {field.name for field in fields(MRAOptions)}
# Rows that run nowhere on a plain CPU have tests of their own.
TESTED_ELSEWHERE = {"triton": "tests/kernels"}
# Rows that need a compiler where this package is installed; tests/ops/test_native.py asks for it.
COMPILED = {"native"}


def test_every_row_is_held_against_the_reference() -> None:
    tested = {"reference", *HERE, *TESTED_ELSEWHERE, *COMPILED}
    assert tested == {one.name for one in IMPLEMENTATIONS}
    assert set(ImplementationName.__args__) == {"auto", *(one.name for one in IMPLEMENTATIONS)}


# A value of each option that is not its default.
OTHER = {
    "block_size": 8,
    "block_per_row": 3,
    "num_blocks": 5,
    "approx_mode": "sparse",
    "initial_prior_first_n_blocks": 1,
    "initial_prior_diagonal_n_blocks": 2,
    "selection": "per_row",
    "coarse_key_size": 4,
    "salient_keys": 3,
    "block_score": "mass",
    "exact_up_to": 7,
}


def test_every_option_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(OTHER) == OPTIONS, "an option has no value to try here"
    handed = []

    def keep(_impl: str, _query: Tensor, _value: Tensor, options: MRAOptions) -> None:
        handed.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "select", keep)
    query, key, value = random_inputs()
    for name, other in OTHER.items():
        expected = MRAOptions(**{name: other})
        for call in (partial(mra_attention, query, key, value), partial(weights, query, key)):
            with pytest.raises(KeyboardInterrupt):
                call(**{name: other})
            assert handed.pop() == expected


def test_what_was_served_once_is_served() -> None:
    for serves in (exact.SERVES, relative.SERVES, *(one.serves for one in IMPLEMENTATIONS)):
        assert serves >= {
            *("block_size", "block_per_row", "num_blocks", "approx_mode", "selection"),
            *("initial_prior_first_n_blocks", "initial_prior_diagonal_n_blocks"),
        }


def test_every_list_of_options_is_that_of_the_dataclass() -> None:
    for function in (weights, MRAAttention):
        listed = inspect.signature(function).parameters
        assert set(listed) >= OPTIONS
        assert all(listed[one.name].default == one.default for one in fields(MRAOptions))
    with pytest.raises(TypeError, match=r"mra_attention_weights\(\) got an unexpected .* 'blok'"):
        weights(*random_inputs()[:2], blok=3)
    call = inspect.signature(api.mra_attention).parameters
    beside = ["scale", "return_lse", "impl"]
    written_out = {
        name: one.default
        for name, one in call.items()
        if one.kind is one.KEYWORD_ONLY and name not in beside
    }
    assert written_out == {field.name: field.default for field in fields(MRAOptions)}
    assert list(MRAOptionValues.__annotations__) == [field.name for field in fields(MRAOptions)]
    for row in IMPLEMENTATIONS:
        assert row.serves <= OPTIONS, row.name
    assert relative.SERVES <= OPTIONS
    for direction in ("forward", "backward"):
        for name in ("eager", "triton", "native"):  # the reference is none
            operator = getattr(torch.ops.mra_plugin, f"{name}_{direction}").default
            taken = [argument.name for argument in operator._schema.arguments]
            own = [field.name for field in fields(MRAOptions)]
            assert taken[-len(own) - 1 :] == [*own, "scale"]


@dataclass(frozen=True, kw_only=True)
class WithPretended(MRAOptions):
    """As if there were one option more, of which no implementation knows."""

    pretended: int = 0


@pytest.fixture
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pretending:
        def __new__(cls, **options: Any) -> MRAOptions:
            return WithPretended(pretended=1, **options)

        @staticmethod
        def given_to(_: str, options: dict[str, Any]) -> MRAOptions:
            return WithPretended(pretended=1, **options)

    monkeypatch.setattr(api, "MRAOptions", Pretending)


@pytest.mark.usefixtures("_pretended")
@pytest.mark.parametrize("impl", ["auto", *(one.name for one in IMPLEMENTATIONS)])
@pytest.mark.parametrize("budget", [1, 99])
def test_an_option_that_nobody_knows_is_refused_by_name(impl: str, budget: int) -> None:
    inputs = random_inputs(dtype=torch.float32)
    with pytest.raises(ValueError, match="does not know pretended") as caught:
        mra_attention(*inputs, block_per_row=budget, impl=impl)
    if impl != "auto":
        assert f'impl="{impl}" does not know pretended' in str(caught.value)


@pytest.mark.usefixtures("_pretended")
def test_nor_is_it_ignored_in_the_matrix_that_is_looked_at() -> None:
    query, key, _ = random_inputs()
    with pytest.raises(ValueError, match="does not know pretended"):
        weights(query, key)


def test_nor_with_relative_positions() -> None:
    query, key, _ = random_inputs(query_length=16)
    settings = {"scale": 1.0, "with_key": False}
    with pytest.raises(ValueError, match="does not know pretended"):
        relative.relative_weights(
            query, key, torch.zeros(31, 16), None, WithPretended(pretended=1), **settings
        )


def test_nor_is_it_taken_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would fail at the first call fails when it is chosen."""
    options = WithPretended(pretended=1)
    for impl in ("auto", *(one.name for one in IMPLEMENTATIONS)):
        with pytest.raises(ValueError, match=f'impl="{impl}" does not know pretended'):
            implementations.check_known(impl, options)
    with pytest.raises(ValueError, match="relative positions does not know pretended"):
        relative.check_known(options)
    x = random_inputs()[0]
    assert not exact.covers_everything(x, x, replace(options, block_per_row=99))
    assert exact.covers_everything(x, x, MRAOptions(block_per_row=99))


def test_an_option_at_its_default_asks_for_nothing() -> None:
    x = random_inputs(dtype=torch.float32)[0]
    assert select("auto", x, x, WithPretended(pretended=0)).name in HERE


def test_auto_takes_the_first_that_serves_and_never_the_reference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = random_inputs(dtype=torch.float32)[0]
    options = WithPretended(pretended=1)
    knowing = [
        replace(one, serves=one.serves | {"pretended"}) if one.name == "reference" else one
        for one in IMPLEMENTATIONS
    ]
    monkeypatch.setattr(implementations, "IMPLEMENTATIONS", tuple(knowing))
    assert select("reference", x, x, options).name == "reference"
    with pytest.raises(ValueError, match=r'impl="auto" finds no implementation.*pretended'):
        select("auto", x, x, options)
    new = replace(knowing[1], name="new", serves=OPTIONS | {"pretended"}, automatic_on=None)
    monkeypatch.setattr(implementations, "IMPLEMENTATIONS", (*knowing, new))
    assert select("auto", x, x, options).name == "new"
    assert select("auto", x, x, MRAOptions()).name in HERE


FIRST_CALL = """
import torch
from mra_plugin.ops import mra_attention

def attend(x):
    return 2 * mra_attention(x + 1, x, x, block_size=16, block_per_row=2, impl="{impl}")

x = torch.randn(1, 2, 100, 16, requires_grad=True)
compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
out = compiled(x)
out.sum().backward()
torch.testing.assert_close(out, attend(x))
"""


def first_call_in_a_trace(impl: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL.format(impl=impl)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr


# "auto" is what comes first of those here.
@pytest.mark.parametrize(
    "impl", ["auto", pytest.param("reference", marks=pytest.mark.slow), "eager"]
)
def test_the_first_call_of_a_process_may_be_traced(impl: str) -> None:
    first_call_in_a_trace(impl)


def test_so_may_the_first_call_of_the_kernels() -> None:
    pytest.importorskip("triton", reason="triton has no wheel for this platform")
    first_call_in_a_trace("triton", TRITON_INTERPRET="1")


def test_a_mask_that_hides_nothing_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact attention goes by PyTorch's faster way without a mask, and copies nothing."""
    given: list[Any] = []
    own = torch.nn.functional.scaled_dot_product_attention

    def recorded(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        given.append((key, value, options["attn_mask"]))
        return own(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    query, key, value = torch.randn(3, 2, 2, 40, 8)
    mask = torch.ones(2, 40, dtype=torch.bool)
    without = mra_attention(query, key, value, exact_up_to=40)
    assert mra_attention(query, key, value, mask, exact_up_to=40).equal(without)
    assert given[1][0] is key
    assert given[1][1] is value
    assert given[1][2] is None
    mask[1, 7] = False
    mra_attention(query, key, value, mask, exact_up_to=40)
    assert given[2][2] is not None


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_exact_attention_can_be_mapped_over_masks() -> None:
    x, mask = torch.randn(3, 2, 2, 40, 8), torch.ones(3, 2, 40, dtype=torch.bool)
    mask[1, 0, 5:9] = False

    def attend(x: Tensor, mask: Tensor) -> Tensor:
        return mra_attention(x, x, x, mask, exact_up_to=40)

    expected = torch.stack([attend(*one) for one in zip(x, mask, strict=True)])
    torch.testing.assert_close(torch.vmap(attend)(x, mask), expected)
