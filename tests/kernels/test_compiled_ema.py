"""The moving average's kernels, compiled for GPUs that need not be there."""

from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton has no wheel for this platform")

from helpers.compiling import compile_for, resource_usage  # noqa: E402

from mra_plugin.ops.ema.triton import kernels, launch  # noqa: E402

KERNELS = [
    kernels.leave_kernel,
    kernels.carry_kernel,
    kernels.output_kernel,
    kernels.gradient_kernel,
]
POINTER = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32"}
TARGETS = [
    pytest.param(arch, dtype, id=f"{arch}-{dtype}".replace("torch.", ""), marks=marks)
    for arch in (80, 90, 100)
    for dtype in (torch.float16, torch.bfloat16, torch.float32)
    for marks in [() if arch == 90 and dtype == torch.bfloat16 else pytest.mark.slow]
]


def kind(parameter: Any, dtype: torch.dtype) -> str:
    """A parameter's type, in triton's words; what is not named here is a float32 tensor."""
    if parameter.is_constexpr:
        return "constexpr"
    if parameter.name in ("x", "grad", "out"):
        return POINTER[dtype]
    if parameter.name == "mask":
        return "*i8"
    return "i32" if parameter.name in kernels.SIZES else "*fp32"


def compiled(kernel: Any, arch: int, dtype: torch.dtype, averages: int, **flags: bool) -> Any:
    constants = {
        "CHANNELS": 500,
        "AVERAGES": averages,
        "PADDED_AVERAGES": triton.next_power_of_2(averages),
        "ROWS": launch.rows_per_program(averages),
        "STEP": launch.STEP,
        "NUMBERS": 500 * averages,
        "WIDTH": launch.WIDTH,
        **flags,
    }
    settings = {"num_warps": launch.NUM_WARPS}
    return compile_for(arch, kernel, lambda one: kind(one, dtype), constants, settings)


@pytest.mark.parametrize(("arch", "dtype"), TARGETS)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.fn.__name__)
def test_states_stay_in_registers(
    kernel: Any, arch: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    # With all that a kernel can do, and averages that fill no power of two.
    for averages in (16, 5):
        binary = compiled(kernel, arch, dtype, averages)
        assert "STACK:0 " in resource_usage(binary, tmp_path / "kernel.cubin")
        assert binary.metadata.shared <= 8 << 10


@pytest.mark.slow
@pytest.mark.parametrize("averages", [1, 128])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.fn.__name__)
def test_few_and_many_averages(kernel: Any, averages: int, tmp_path: Path) -> None:
    flags = {
        "REVERSED": False,
        "HAS_MASK": False,
        "HAS_ENTRY": False,
        "HAS_SLOPES": False,
        "HAS_OTHER": False,
        "HAS_START": False,
        "HAS_AFTER": False,
    }
    binary = compiled(kernel, 90, torch.bfloat16, averages, **flags)
    assert "STACK:0 " in resource_usage(binary, tmp_path / "kernel.cubin")
