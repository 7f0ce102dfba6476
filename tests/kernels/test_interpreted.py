"""The kernels, run by Triton's interpreter, against the reference in float64.

A run of its own, as the interpreter is chosen when triton is imported:
``TRITON_INTERPRET=1 pytest -m interpreter``.
"""

from typing import Any

import pytest
import torch
from helpers.attention_calls import padding_mask, random_inputs, relative_error, run
from helpers.interpreted import LIMITS, compare
from torch.utils.checkpoint import checkpoint

from mra_plugin.ops import MRAOptions, mra_attention
from mra_plugin.ops.operator_pair import arguments
from mra_plugin.ops.triton import choosing, lists, operators

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("_interpreter")]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("selection", ["global", "per_row"])
@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
def test_types(dtype: torch.dtype, selection: str, approx_mode: str) -> None:
    compare(
        random_inputs(2, 2, 90, dtype=dtype),
        padding_mask([90, 41], 90),
        block_size=16,
        block_per_row=2,
        selection=selection,
        approx_mode=approx_mode,
    )


@pytest.mark.parametrize(
    ("query_length", "key_length", "channels", "value_channels"),
    [(64, 64, 8, 8), (70, 33, 24, 40), (31, 130, 80, 66), (1, 1, 16, 16), (40, 50, 256, 200)],
)
@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
def test_shapes(
    query_length: int, key_length: int, channels: int, value_channels: int, block_size: int
) -> None:
    inputs = random_inputs(
        1, 2, query_length, key_length, channels, value_channels, dtype=torch.float32
    )
    compare(inputs, block_size=block_size, block_per_row=1)


@pytest.mark.parametrize("options", [
    {"initial_prior_first_n_blocks": 2},
    {"initial_prior_diagonal_n_blocks": 3},
    {"scale": 0.7},
    {"num_blocks": 1},
    {"num_blocks": 1, "approx_mode": "sparse"},
    {"num_blocks": 900},
])  # fmt: skip
def test_options(options: dict[str, Any]) -> None:
    compare(random_inputs(1, 2, 96, dtype=torch.float32), block_size=16, **options)


def test_masks_with_holes() -> None:
    generator = torch.Generator().manual_seed(3)
    mask = torch.rand(3, 100, generator=generator) < 0.4
    mask[1, :48] = False  # whole blocks without a token, in front
    mask[2] = False
    other = torch.rand(3, 100, generator=generator) < 0.7
    inputs = random_inputs(3, 2, 100, dtype=torch.float32)
    compare(inputs, mask, block_size=16, block_per_row=2)
    compare(inputs, mask, other, block_size=16, block_per_row=2)
    compare(inputs, None, other, block_size=16, block_per_row=2, approx_mode="sparse")


def test_inputs_of_any_layout() -> None:
    base = [x.transpose(1, 2).contiguous() for x in random_inputs(2, 3, 80, dtype=torch.float32)]
    query, key, value = (x.transpose(1, 2) for x in base)
    compare((query, key, value), block_size=16, block_per_row=2)
    channels_apart = value.transpose(2, 3).contiguous().transpose(2, 3)
    one_head = key[:, :1].expand(-1, 3, -1, -1)
    compare((query, one_head, channels_apart), block_size=16, block_per_row=2)


def test_heads_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_RANK_BYTES", 1)
    compare(
        random_inputs(2, 3, 70, dtype=torch.float32),
        padding_mask([70, 33], 70),
        block_size=16,
        block_per_row=2,
    )


@pytest.mark.parametrize(
    ("block_size", "approx_mode"), [(16, "full"), (16, "sparse"), (128, "full")]
)
def test_long_lists_are_shared_out(
    block_size: int, approx_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_TOKENS_PER_ITEM", block_size)
    queries, keys = 2 * block_size + 9, 4 * block_size - 3
    compare(
        random_inputs(2, 1, queries, keys, dtype=torch.float32),
        padding_mask([keys, 2 * block_size], keys),
        padding_mask([2 * block_size, queries], queries),
        block_size=block_size,
        num_blocks=8,
        approx_mode=approx_mode,
        # The first row and the first column are full.
        initial_prior_first_n_blocks=1,
    )


@pytest.mark.parametrize("lengths", [(0, 20, 20), (2, 0, 0), (2, 20, 0)])
def test_nothing_to_do(lengths: tuple[int, int, int]) -> None:
    batch, query_length, key_length = lengths
    inputs = random_inputs(batch, 2, query_length, key_length, dtype=torch.float32)
    leaves = [x.requires_grad_() for x in inputs]
    out = mra_attention(*leaves, block_size=16, impl="triton")
    out.sum().backward()
    assert out.shape == (batch, 2, query_length, 16)
    assert all(torch.all(x == 0) for x in (out, *(leaf.grad for leaf in leaves)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
def test_logits_in_the_thousands_stay_finite(dtype: torch.dtype, approx_mode: str) -> None:
    inputs = [x.detach().mul(60).to(dtype).requires_grad_() for x in random_inputs(1, 2, 64)]
    out = mra_attention(
        *inputs, block_size=16, block_per_row=1, approx_mode=approx_mode, impl="triton"
    )
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(x.grad).all() for x in inputs)


def test_two_runs_agree_to_the_bit() -> None:
    inputs = random_inputs(2, 2, 100, dtype=torch.float32)
    first = run(inputs, block_size=16, block_per_row=2, impl="triton")
    second = run(inputs, block_size=16, block_per_row=2, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_whatever_stands_at_padding_reaches_no_real_token() -> None:
    mask = padding_mask([70, 41], 90)
    results = []
    for filling in (0.0, float("nan")):
        leaves = [
            x.masked_fill(~mask[:, None, :, None], filling).requires_grad_()
            for x in random_inputs(2, 2, 90, dtype=torch.float32)
        ]
        out = mra_attention(*leaves, mask, mask, block_size=16, block_per_row=2, impl="triton")
        cotangent = torch.ones_like(out).masked_fill(~mask[:, None, :, None], filling)
        results.append((out.detach(), *torch.autograd.grad(out, leaves, cotangent)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_not_a_number_in_a_real_token_comes_out(approx_mode: str, which: int) -> None:
    inputs = random_inputs(1, 1, 50, dtype=torch.float32)
    inputs[which][:, :, 20] = float("nan")
    leaves = [x.requires_grad_() for x in inputs]
    options = {"block_size": 16, "block_per_row": 1, "approx_mode": approx_mode}
    out = mra_attention(*leaves, **options, impl="triton")
    out.sum().backward()
    assert out[:, :, 20].isnan().all()
    assert which == 0 or out.isnan().all()
    assert any(leaf.grad.isnan().any() for leaf in leaves)


def test_operators_are_well_behaved() -> None:
    query, key, value = (
        x.requires_grad_() for x in random_inputs(2, 2, 50, 41, dtype=torch.float32)
    )
    mask = padding_mask([41, 17], 41)
    inputs = (query, key, value, mask, None)
    settings = arguments(MRAOptions(block_size=16, block_per_row=2), 0.3)
    torch.library.opcheck(operators.operators.forward, (*inputs, *settings))
    results = [x.detach() for x in operators.operators.forward(*inputs, *settings)]
    saved = [None if x is None else x.detach() for x in inputs]
    grad_out = torch.randn_like(results[0])
    torch.library.opcheck(
        operators.operators.backward, (grad_out, None, *results, *saved, *settings)
    )


def test_compiles_whole_and_once_for_every_length() -> None:
    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return 2 * mra_attention(query + 1, key, value, block_size=16, impl="triton")

    torch.compiler.reset()
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for length in (70, 96, 133):
            results = []
            for function in (compiled, attend):
                inputs = random_inputs(1, 2, length, dtype=torch.float32)
                leaves = [x.requires_grad_() for x in inputs]
                out = function(*leaves)
                out.square().sum().backward()
                results.append((out.detach(), *(x.grad for x in leaves)))
            torch.testing.assert_close(*results)


def test_exports_for_inference() -> None:
    class Attend(torch.nn.Module):
        def forward(
            self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
        ) -> torch.Tensor:
            return mra_attention(query, key, value, block_size=16, impl="triton")

    inputs = random_inputs(1, 1, 40, dtype=torch.float32)
    tokens = torch.export.Dim("tokens", min=32, max=4096)
    exported = torch.export.export(
        Attend(), inputs, dynamic_shapes=({2: tokens}, {2: tokens}, {2: tokens})
    )
    longer = random_inputs(1, 1, 70, dtype=torch.float32)
    assert torch.equal(exported.module()(*longer), Attend()(*longer))


def test_checkpointing_changes_nothing() -> None:
    results = []
    for checkpointed in (False, True):
        leaves = [x.requires_grad_() for x in random_inputs(1, 2, 50, dtype=torch.float32)]

        def attend(*inputs: torch.Tensor) -> torch.Tensor:
            return mra_attention(*inputs, block_size=16, impl="triton")

        out = checkpoint(attend, *leaves, use_reentrant=False) if checkpointed else attend(*leaves)
        out.square().sum().backward()
        results.append((out.detach(), *(x.grad for x in leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_autocast_is_a_cast_of_the_inputs() -> None:
    inputs = random_inputs(1, 2, 70, dtype=torch.float32)
    options = {"block_size": 16, "block_per_row": 2, "impl": "triton"}
    with torch.autocast("cpu", torch.float16):
        out = mra_attention(*inputs, **options)
    expected = mra_attention(*(x.half() for x in inputs), **options)
    assert torch.equal(out, expected)


def test_agrees_with_eager() -> None:
    inputs = random_inputs(1, 2, 100, dtype=torch.float32)
    options = {"block_size": 32, "block_per_row": 2}
    eager = mra_attention(*inputs, **options, impl="eager")
    assert relative_error(mra_attention(*inputs, **options, impl="triton"), eager) < 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_size": 8}, ["block_size", "8"]),
        ({"dtype": torch.float64}, ["float64"]),
        ({"channels": 300}, ["256 channels", "300"]),
    ],
)
def test_what_it_cannot_serve_it_refuses(change: dict[str, Any], words: list[str]) -> None:
    inputs = random_inputs(
        1, 1, 20, channels=change.get("channels", 16), dtype=change.get("dtype", torch.float32)
    )
    with pytest.raises(ValueError, match="triton") as caught:
        mra_attention(*inputs, block_size=change.get("block_size", 16), impl="triton")
    assert all(word in str(caught.value) for word in words)
