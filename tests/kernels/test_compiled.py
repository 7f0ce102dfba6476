"""The kernels, compiled for GPUs that need not be there: code, registers and shared memory."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton has no wheel for this platform")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from mra_plugin.ops.fused import backward_kernels, forward_kernel, list_kernel, tuning  # noqa: E402

FORWARD, SUMS = forward_kernel.forward_kernel, backward_kernels.sums_kernel
QUERY, KEY_VALUE = backward_kernels.query_kernel, backward_kernels.key_value_kernel
LAUNCH = {
    FORWARD: tuning.forward_launch,
    QUERY: tuning.backward_launch,
    KEY_VALUE: tuning.backward_launch,
}
POINTER = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
INPUTS = {"query", "key", "value", "out", "grad_out", "grad_query", "grad_key", "grad_value"}
LISTS = {"order", "starts", "columns", "rows_listed", "entries"}
MASKS = {"key_mask", "query_mask", "chosen"}
SCALARS = {
    "heads", "query_length", "key_length", "blocks_x", "blocks_y", "capacity", "lines", "length",
}  # fmt: skip


def kind(parameter: Any, dtype: torch.dtype) -> str:
    """A parameter's type, in triton's words; what is not named above is a float32 tensor."""
    name = parameter.name
    if parameter.is_constexpr:
        return "constexpr"
    if name in INPUTS:
        return POINTER[dtype]
    if name in LISTS:
        return "*i32"
    if name in MASKS:
        return "*i8"
    if name in SCALARS or "stride" in name:
        return "i32"
    return "fp32" if name == "scale" else "*fp32"


def compiled(
    kernel: Any, arch: int, dtype: torch.dtype, channels: int, block_size: int, **options: bool
) -> Any:
    launch = LAUNCH[kernel](block_size, channels, dtype) if kernel in LAUNCH else None
    constants = {
        "CHANNELS": channels,
        "VALUE_CHANNELS": channels,
        "PADDED_CHANNELS": channels,
        "PADDED_VALUE_CHANNELS": channels,
        "BLOCK_SIZE": block_size,
        "ROWS": launch and launch.rows,
        "KEYS_PER_STEP": launch and launch.step,
        "QUERIES_PER_STEP": launch and launch.step,
        "PRECISION": "ieee" if dtype == torch.float32 else "tf32",
        "WIDTH": 256,
    }
    signature = {parameter.name: kind(parameter, dtype) for parameter in kernel.params}
    names = list(signature)
    values = {
        (names.index(name),): constants.get(name, options.get(name, True))
        for name in names
        if signature[name] == "constexpr"
    }
    # As at a launch: tensors and strides of tokens and heads are multiples of 16.
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name in names
        if signature[name].startswith("*") or re.search(r"stride_[bhn]$", name)
    }
    settings = {"num_warps": launch.num_warps, "num_stages": launch.num_stages} if launch else {}
    return triton.compile(
        ASTSource(kernel, signature, values, aligned),
        target=GPUTarget("cuda", arch, 32),
        options=settings,
    )


def stack_bytes(binary: Any, path: Path) -> int:
    """Bytes per thread that did not fit into registers."""
    path.write_bytes(binary.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    command = [str(tools / "cuobjdump"), "--dump-resource-usage", str(path)]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert found, usage
    return int(found[1]) + int(found[2])


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kernel", [FORWARD, QUERY, KEY_VALUE, SUMS], ids=lambda k: k.fn.__name__)
def test_default_configurations(kernel: Any, dtype: torch.dtype, arch: int, tmp_path: Path) -> None:
    for block_size in (32, 64):
        binary = compiled(kernel, arch, dtype, 64, block_size)
        assert stack_bytes(binary, tmp_path / "kernel.cubin") == 0
        assert binary.metadata.shared <= 96 << 10
        if dtype != torch.float32 and kernel is not SUMS:
            assert re.search(r"mma\.sync|wgmma\.mma_async|tcgen05\.mma", binary.asm["ptx"])


@pytest.mark.parametrize("kernel", [FORWARD, QUERY, KEY_VALUE], ids=lambda k: k.fn.__name__)
@pytest.mark.parametrize("block_size", [16, 128])
@pytest.mark.parametrize("channels", [128, 256])
def test_other_sizes_fit_a_multiprocessor(
    kernel: Any, block_size: int, channels: int, tmp_path: Path
) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        assert compiled(kernel, 90, dtype, channels, block_size).metadata.shared <= 227 << 10


@pytest.mark.parametrize("arch", [80, 90, 100])
def test_lists(arch: int, tmp_path: Path) -> None:
    binary = compiled(list_kernel.compact_kernel, arch, torch.float32, 64, 32)
    assert stack_bytes(binary, tmp_path / "kernel.cubin") == 0


def test_the_compiler_is_not_the_interpreter() -> None:
    assert os.environ.get("TRITON_INTERPRET", "0") != "1"
