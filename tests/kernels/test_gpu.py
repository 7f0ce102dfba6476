"""The kernels on an NVIDIA GPU: ``pytest -m gpu tests/kernels``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.attention_calls import padding_mask, random_inputs, relative_error, run
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from mra_plugin.ops import mra_attention

pytestmark = pytest.mark.gpu

NAMES = ("output", "lse", "grad_query", "grad_key", "grad_value")
GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


@pytest.fixture(autouse=True)
def _full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.cuda.is_available(), "these tests need an NVIDIA GPU"
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def on_gpu(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.cuda() for x in tensors)


def flash_error(inputs: tuple[Tensor, ...]) -> float:
    """Of PyTorch's own flash attention against exact attention, the worst of all results."""
    results = []
    for backend, dtype in ((SDPBackend.FLASH_ATTENTION, inputs[0].dtype), (SDPBackend.MATH, None)):
        leaves = [(x if dtype else x.double()).detach().requires_grad_() for x in inputs]
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(*leaves)
        generator = torch.Generator().manual_seed(1)
        weight = torch.randn(out.shape, dtype=torch.float64, generator=generator).cuda()
        (out * weight).sum().backward()
        results.append((out.detach(), *(x.grad for x in leaves)))
    return max(relative_error(a, e) for a, e in zip(*results, strict=True))


def check(inputs: tuple[Tensor, ...], *masks: Tensor | None, **options: Any) -> None:
    exact = run(tuple(x.double() for x in inputs), *masks, impl="reference", **options)
    actual = run(inputs, *masks, impl="triton", **options)
    if inputs[0].dtype == torch.float32:
        limit = 1e-5
    else:
        # Flash attention serves D = Dv only; its error hardly depends on them.
        limit = 2 * flash_error((inputs[0], *inputs[1:2], inputs[1]))
    errors = {name: relative_error(a, e) for name, a, e in zip(NAMES, actual, exact, strict=True)}
    assert all(error <= limit for error in errors.values()), (errors, limit)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("selection", ["global", "per_row"])
@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
@pytest.mark.parametrize("channels", [64, 128])
def test_real_sizes(dtype: torch.dtype, selection: str, approx_mode: str, channels: int) -> None:
    inputs = on_gpu(*random_inputs(2, 4, 2000, channels=channels, dtype=dtype))
    mask = padding_mask([2000, 1111], 2000).cuda()
    check(inputs, mask, block_per_row=8, selection=selection, approx_mode=approx_mode)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
@pytest.mark.parametrize(
    ("channels", "value_channels"), [(8, 8), (24, 40), (80, 80), (200, 256), (256, 256)]
)
def test_shapes(dtype: torch.dtype, block_size: int, channels: int, value_channels: int) -> None:
    inputs = on_gpu(*random_inputs(1, 2, 700, 450, channels, value_channels, dtype=dtype))
    check(inputs, block_size=block_size, block_per_row=2)


@pytest.mark.parametrize(
    "options",
    [
        {"initial_prior_first_n_blocks": 2},
        {"initial_prior_diagonal_n_blocks": 3},
        {"num_blocks": 1, "approx_mode": "sparse"},
        {"num_blocks": 100_000},
        {"scale": 0.3},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    inputs = on_gpu(*random_inputs(1, 4, 1000, channels=64, dtype=torch.float32))
    check(inputs, **options)


@pytest.mark.parametrize("channels", [32, 80])
def test_of_rows_with_equal_bests_the_first_is_chosen(channels: int) -> None:
    # Each row's best pair is behind nothing, whatever the rounding of products.
    inputs = on_gpu(*random_inputs(1, 4, 1000, channels=channels, dtype=torch.float32))
    check(inputs, num_blocks=4, approx_mode="sparse")


def test_two_runs_agree_to_the_bit() -> None:
    inputs = on_gpu(*random_inputs(2, 4, 4000, channels=64, dtype=torch.bfloat16))
    first, second = (run(inputs, block_per_row=8, impl="triton") for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_auto_picks_the_kernels() -> None:
    inputs = on_gpu(*random_inputs(1, 2, 1000, channels=64, dtype=torch.bfloat16))
    assert torch.equal(mra_attention(*inputs), mra_attention(*inputs, impl="triton"))


# The pairs of the longer one are too many for one program to choose from.
@pytest.mark.parametrize("length", [1000, 5000])
def test_nothing_waits_for_the_device_and_a_graph_holds_all_of_it(length: int) -> None:
    static = [
        x.cuda().requires_grad_()
        for x in random_inputs(1, 4, length, channels=64, dtype=torch.bfloat16)
    ]
    mask = padding_mask([length - 99], length).cuda()

    def step() -> tuple[Tensor, ...]:
        out = mra_attention(*static, mask, impl="triton")
        return (out, *torch.autograd.grad(out.float().square().sum(), static))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()

    fresh = random_inputs(1, 4, length, channels=64, dtype=torch.bfloat16, seed=1)
    with torch.no_grad():
        for target, source in zip(static, fresh, strict=True):
            target.copy_(source)
    graph.replay()
    torch.cuda.set_sync_debug_mode("error")
    try:
        expected = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))


@pytest.mark.parametrize(
    ("length", "options"),
    [
        (131_072, {}),
        # A row and a column of blocks are full, and shared out over many programs.
        (32_768, {"initial_prior_first_n_blocks": 1}),
    ],
)
def test_a_long_sequence(length: int, options: dict[str, Any]) -> None:
    inputs = on_gpu(*random_inputs(1, 2, length, channels=64, dtype=torch.bfloat16))
    actual = run(inputs, block_per_row=8, impl="triton", **options)
    # The dense reference would need terabytes; eager shares no kernel with triton.
    expected = run(tuple(x.float() for x in inputs), block_per_row=8, impl="eager", **options)
    errors = {n: relative_error(a, e) for n, a, e in zip(NAMES, actual, expected, strict=True)}
    assert all(error < 3e-2 for error in errors.values()), errors


@pytest.mark.parametrize(
    "name", ["mra2_full", "mra2_full_padded", "mra2_full_priors", "mra2_sparse"]
)
def test_golden(name: str) -> None:
    if not GOLDEN.is_dir():
        pytest.skip(f"the original's outputs are not at {GOLDEN}")
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = dict(file)
    leaves = [
        torch.tensor(arrays[part], device="cuda").requires_grad_()
        for part in ("query", "key", "value")
    ]
    out = mra_attention(
        *leaves,
        torch.tensor(arrays["mask"], device="cuda"),
        torch.tensor(arrays["mask"], device="cuda"),
        block_size=int(arrays["block_size"]),
        num_blocks=int(arrays["num_blocks"]),
        approx_mode=str(arrays["approx_mode"]),
        initial_prior_first_n_blocks=int(arrays["initial_prior_first_n_blocks"]),
        initial_prior_diagonal_n_blocks=int(arrays["initial_prior_diagonal_n_blocks"]),
        impl="triton",
    )
    out.backward(torch.tensor(arrays["grad_output"], device="cuda"))
    results = [out.detach().cpu(), *(x.grad.cpu() for x in leaves)]
    for part, result in zip(
        ("output", "grad_query", "grad_key", "grad_value"), results, strict=True
    ):
        assert relative_error(result, torch.tensor(arrays[part])) < 5e-6, part
