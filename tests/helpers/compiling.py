"""Kernels compiled for GPUs that need not be there. Needs triton."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


def compile_for(
    arch: int,
    kernel: Any,
    kind: Callable[[Any], str],
    constants: Mapping[str, Any],
    settings: Mapping[str, int],
    is_aligned: Callable[[str], bool] = lambda name: False,
) -> Any:
    """Compiles a kernel as a launch would.

    Args:
        arch: of the GPU, for example 90.
        kernel: the function.
        kind: a parameter's type, in triton's words.
        constants: by name; those that are missing are True.
        settings: such as ``num_warps``.
        is_aligned: which numbers are multiples of 16, by name; all tensors are.
    """
    signature = {parameter.name: kind(parameter) for parameter in kernel.params}
    names = list(signature)
    values = {
        (names.index(name),): constants.get(name, True)
        for name in names
        if signature[name] == "constexpr"
    }
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name in names
        if signature[name].startswith("*") or is_aligned(name)
    }
    return triton.compile(
        ASTSource(kernel, signature, values, aligned),
        target=GPUTarget("cuda", arch, 32),
        options=dict(settings),
    )


def resource_usage(binary: Any, path: Path) -> str:
    """What a compiled kernel takes of registers, stack and memory, as NVIDIA's tool says it.

    Args:
        binary: the kernel.
        path: a file to write it to.
    """
    path.write_bytes(binary.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    command = [str(tools / "cuobjdump"), "--dump-resource-usage", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
