"""The table of implementations: it fails closed, and every list of options is the dataclass's."""

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from functools import partial

import pytest
import torch
from helpers.agreement import HERE
from helpers.attention_calls import random_inputs

import mra_plugin.models.mra.relative as relative
from mra_plugin.ops import MRAOptions, api, implementations, mra_attention, mra_attention_weights
from mra_plugin.ops.implementations import IMPLEMENTATIONS, ImplementationName, select
from mra_plugin.ops.options import MRAOptionValues

OPTIONS = {field.name for field in fields(MRAOptions)}
# Rows that run nowhere on a plain CPU have tests of their own.
TESTED_ELSEWHERE = {"triton": "tests/kernels"}


def test_every_row_is_held_against_the_reference() -> None:
    assert {"reference", *HERE, *TESTED_ELSEWHERE} == {one.name for one in IMPLEMENTATIONS}
    assert set(ImplementationName.__args__) == {"auto", *(one.name for one in IMPLEMENTATIONS)}


def test_every_list_of_options_is_that_of_the_dataclass() -> None:
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
        for name in ("eager", "triton"):
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
    monkeypatch.setattr(api, "MRAOptions", partial(WithPretended, pretended=1))


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
        mra_attention_weights(query, key)


def test_nor_with_relative_positions() -> None:
    query, key, _ = random_inputs(query_length=16)
    settings = {"scale": 1.0, "with_key": False}
    with pytest.raises(ValueError, match="does not know pretended"):
        relative.relative_weights(
            query, key, torch.zeros(31, 16), None, WithPretended(pretended=1), **settings
        )


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


@pytest.mark.parametrize("impl", ["auto", "reference", *HERE])
def test_the_first_call_of_a_process_may_be_traced(impl: str) -> None:
    first_call_in_a_trace(impl)


def test_so_may_the_first_call_of_the_kernels() -> None:
    pytest.importorskip("triton", reason="triton has no wheel for this platform")
    first_call_in_a_trace("triton", TRITON_INTERPRET="1")
