"""The kernels, compiled for GPUs that need not be there: code, registers and shared memory."""

import itertools
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton has no wheel for this platform")

from helpers.compiling import compile_for, resource_usage  # noqa: E402

from mra_plugin.ops.triton import choosing, lists, salient, tuning  # noqa: E402
from mra_plugin.ops.triton.kernels import choosing as choice_kernels  # noqa: E402
from mra_plugin.ops.triton.kernels import coarse as coarse_kernels  # noqa: E402
from mra_plugin.ops.triton.kernels import fine_backward as backward_kernels  # noqa: E402
from mra_plugin.ops.triton.kernels import fine_forward as forward_kernel  # noqa: E402
from mra_plugin.ops.triton.kernels import lists as list_kernels  # noqa: E402
from mra_plugin.ops.triton.kernels import merging as merge_kernels  # noqa: E402
from mra_plugin.ops.triton.kernels import pooling as pool_kernel  # noqa: E402
from mra_plugin.ops.triton.kernels import salient as salient_kernel  # noqa: E402
from mra_plugin.ops.triton.kernels import sums as sums_kernel  # noqa: E402

FORWARD, SUMS = forward_kernel.forward_kernel, sums_kernel.sums_kernel
QUERY, KEY_VALUE = backward_kernels.query_kernel, backward_kernels.key_value_kernel
POOL, POOL_CELLS = pool_kernel.pool_kernel, pool_kernel.pool_cells_kernel
SALIENT = salient_kernel.salient_kernel
RANK = [choice_kernels.rank_kernel, choice_kernels.rank_by_mass_kernel]
COARSE = [
    coarse_kernels.coarse_forward_kernel,
    coarse_kernels.coarse_query_kernel,
    coarse_kernels.coarse_key_value_kernel,
]
MERGE = [merge_kernels.merge_kernel, merge_kernels.add_kernel]
OF_INTEGERS = [
    choice_kernels.select_kernel,
    choice_kernels.tally_kernel,
    choice_kernels.mark_kernel,
    list_kernels.count_kernel,
    list_kernels.compact_kernel,
    list_kernels.cut_kernel,
    list_kernels.list_kernel,
]
FINE = {
    FORWARD: tuning.forward_launch,
    QUERY: tuning.backward_launch,
    KEY_VALUE: tuning.backward_launch,
}
# As those are launched, but over tiles of the salient keys.
GATHERED = {**FINE, SALIENT: lambda _size, *known: tuning.backward_launch(32, *known)}
# Every GPU with the type of training, and every type with one GPU; the rest takes minutes.
TARGETS = [
    pytest.param(arch, dtype, id=f"{arch}-{dtype}".replace("torch.", ""), marks=marks)
    for arch in (80, 90, 100)
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
    for marks in [() if arch == 90 or dtype == torch.bfloat16 else pytest.mark.slow]
]
POINTER = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
INPUTS = {
    "query", "key", "value", "out", "grad_out", "grad_query", "grad_key", "grad_value",
    "grad", "first", "second",
}  # fmt: skip
INT32 = {
    "starts", "columns", "rows_listed", "entries", "counts", "query_counts", "key_counts",
    "ranks", "last", "below", "ties", "spare", "items", "first_items", "slots", "salient_at",
}  # fmt: skip
MATRIX_PRODUCTS = r"mma\.sync|wgmma\.mma_async|tcgen05\.mma"
MASKS = {"mask", "key_mask", "query_mask", "chosen"}
SCALARS = {
    "heads", "query_length", "key_length", "blocks_x", "blocks_y", "blocks", "capacity", "lines",
    "length", "rows", "budget", "first_blocks", "diagonal_blocks", "items_per_head",
    "slots_per_head", "tokens", "cells", "heads_sharing", "salient_keys",
}  # fmt: skip


def kind(parameter: Any, dtype: torch.dtype) -> str:
    """A parameter's type, in triton's words; what is not named above is a float32 tensor."""
    name = parameter.name
    if parameter.is_constexpr:
        return "constexpr"
    if name in INPUTS:
        return POINTER[dtype]
    if name in INT32:
        return "*i32"
    if name == "salient":
        return "*i64"
    if name in MASKS:
        return "*i8"
    if name in SCALARS or "stride" in name:
        return "i32"
    return "fp32" if name == "scale" else "*fp32"


def launch_of(kernel: Any, dtype: torch.dtype, channels: int, block_size: int) -> Any:
    """Tile sizes and warps, None where a kernel goes by Triton's own."""
    if kernel in GATHERED:
        return GATHERED[kernel](block_size, channels, dtype)
    return tuning.coarse_launch(2048, channels, dtype) if kernel in [*RANK, *COARSE] else None


def compiled(
    kernel: Any, arch: int, dtype: torch.dtype, channels: int, block_size: int, **options: int
) -> Any:
    launch = launch_of(kernel, dtype, channels, block_size)
    constants = {
        "CHANNELS": channels,
        "VALUE_CHANNELS": channels,
        "SECOND_CHANNELS": channels,
        "PADDED_CHANNELS": channels,
        "PADDED_VALUE_CHANNELS": channels,
        "PADDED_SECOND_CHANNELS": channels,
        "BLOCK_SIZE": block_size,
        "CELL_SIZE": block_size,
        "CELLS": 1,
        "ROWS": launch and launch.rows,
        "KEYS_PER_STEP": launch and launch.step,
        "QUERIES_PER_STEP": launch and launch.step,
        "COLUMNS": launch and launch.step,
        "TOKENS_PER_STEP": tuning.tokens_per_step(block_size, channels),
        "PRECISION": "ieee" if dtype == torch.float32 else "tf32",
        "SCORE_PRECISION": tuning.score_precision(dtype),
        "HAS_PRIORS": False,
        "HAS_SALIENT": False,
        "BITS": 31,
        "LINES": lists._LINES,
        "CHUNK": 0,
        "WIDTH": lists._WIDTH,
    }
    if kernel in MERGE or kernel in OF_INTEGERS:
        constants |= {"ROWS": lists.MERGED_ROWS, "CHUNK": 128}
    if kernel is SALIENT:
        constants |= {"CHUNK": salient._CHUNK}
    if kernel is list_kernels.list_kernel:
        constants |= {"LINES": lists._SMALL, "WIDTH": lists._SMALL}
    if kernel is list_kernels.cut_kernel:
        constants |= {"LINES": lists._LINES_CUT}
    if kernel in [choice_kernels.tally_kernel, choice_kernels.mark_kernel]:
        constants |= {"WIDTH": choosing._WIDTH}
    if kernel in RANK:
        constants["PRECISION"] = tuning.score_precision(dtype)
    if kernel in COARSE:
        constants["PRECISION"] = tuning.product_precision(dtype)
    constants |= {name: value for name, value in options.items() if name != "num_warps"}
    settings = {"num_warps": launch.num_warps, "num_stages": launch.num_stages} if launch else {}
    settings |= {name: value for name, value in options.items() if name == "num_warps"}
    return compile_for(
        arch,
        kernel,
        lambda parameter: kind(parameter, dtype),
        constants,
        settings,
        # As at a launch: strides of tokens and heads.
        is_aligned=lambda name: bool(re.search(r"stride_[bhn]$", name)),
    )


def stack_bytes(binary: Any, path: Path) -> int:
    """Bytes per thread that did not fit into registers."""
    usage = resource_usage(binary, path)
    found = re.search(r"STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert found, usage
    return int(found[1]) + int(found[2])


@pytest.mark.parametrize(("arch", "dtype"), TARGETS)
@pytest.mark.parametrize("kernel", [*FINE, SUMS, POOL, *RANK, *COARSE], ids=lambda k: k.fn.__name__)
def test_default_configurations(kernel: Any, arch: int, dtype: torch.dtype, tmp_path: Path) -> None:
    # What is of blocks alone doesn't see their size.
    sizes = (32,) if kernel in [*RANK, *COARSE] else (32, 64)
    # Lists as they are, or cut into chunks.
    chunks = (0, 4096) if kernel in FINE and dtype == torch.bfloat16 else (0,)
    for block_size, tokens in itertools.product(sizes, chunks):
        chunk = tokens // block_size
        binary = compiled(kernel, arch, dtype, 64, block_size, CHUNK=chunk)
        assert stack_bytes(binary, tmp_path / "kernel.cubin") == 0
        assert binary.metadata.shared <= 96 << 10
        if dtype != torch.float32 and kernel not in [SUMS, POOL]:
            assert re.search(MATRIX_PRODUCTS, binary.asm["ptx"])


# Blocks of 16 with cells of 4 keys, and salient keys, as in the preset "close".
CLOSE = [
    *((kernel, {"CELLS": 4}) for kernel in [*RANK, *COARSE]),
    *((kernel, {"CELL_SIZE": 4, "HAS_SALIENT": True}) for kernel in GATHERED),
    (POOL_CELLS, {"BLOCK_SIZE": 4, "TOKENS_PER_STEP": 128}),
]


@pytest.mark.parametrize("arch", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize(
    "dtype",
    [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16, torch.float32],
)
@pytest.mark.parametrize(
    ("kernel", "options"), CLOSE, ids=lambda x: "" if isinstance(x, dict) else x.fn.__name__
)
def test_cells_and_salient_keys(
    kernel: Any, options: dict[str, int], arch: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    binary = compiled(kernel, arch, dtype, 64, 16, **options)
    assert stack_bytes(binary, tmp_path / "kernel.cubin") == 0
    assert binary.metadata.shared <= 96 << 10
    if dtype != torch.float32 and kernel is not POOL_CELLS:
        assert re.search(MATRIX_PRODUCTS, binary.asm["ptx"])


# Shared memory of a program there.
@pytest.mark.parametrize(
    ("arch", "kilobytes"), [(86, 99), pytest.param(90, 227, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kernel", [*GATHERED, *RANK, *COARSE], ids=lambda k: k.fn.__name__)
@pytest.mark.parametrize("channels", [128, 256])
def test_other_sizes_fit_a_multiprocessor(
    kernel: Any, channels: int, arch: int, kilobytes: int
) -> None:
    binary = compiled(kernel, arch, torch.float16, channels, 128)
    assert binary.metadata.shared <= kilobytes << 10


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("kernel", [*OF_INTEGERS, *MERGE], ids=lambda k: k.fn.__name__)
def test_small_kernels(kernel: Any, arch: int, tmp_path: Path) -> None:
    binary = compiled(kernel, arch, torch.float32, 64, 32)
    assert stack_bytes(binary, tmp_path / "kernel.cubin") == 0


def test_the_longest_line_fits_into_registers(tmp_path: Path) -> None:
    binary = compiled(OF_INTEGERS[0], 90, torch.float32, 64, 32, WIDTH=16384, num_warps=16)
    assert stack_bytes(binary, tmp_path / "kernel.cubin") == 0


def test_the_compiler_is_not_the_interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET", "0") != "1"
