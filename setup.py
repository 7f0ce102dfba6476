"""Builds the compiled attention for CPUs where there is a compiler for it, and goes on without it.

MRA_NATIVE=0 leaves it out; MRA_NATIVE_FLAGS has further flags for the compiler and the linker.
"""

import os
import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCE = Path("ops", "native", "source")
FLAGS = os.environ.get("MRA_NATIVE_FLAGS", "").split()
COMMON = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra"]
# GCC notes that vectors are handed over in another way for each kind of processor: none is.
COMMON += ["-Wno-psabi", "-Wno-ignored-attributes"]
X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")
# Kinds of processors that kernels are compiled for: flags, bytes of a vector, and rows of a tile,
# as many as there are registers for. On ARM the portable ones are those for NEON.
TARGETS = {"portable": ([], 16, 8 if ARM else 4)}
if X86:
    TARGETS["avx2"] = (["-mavx2", "-mfma"], 32, 4)
    AVX512 = [
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
        "-mprefer-vector-width=512",
    ]
    TARGETS["avx512"] = (AVX512, 64, 8)
    # Kernels for bfloat16 alone, which need a compiler since GCC 10 or Clang 9.
    TARGETS["avx512_bf16"] = ([*AVX512, "-mavx512bf16", "-DMRA_BFLOAT16_PAIRS"], 64, 8)


class BuildLibrary(build_ext):
    """A plain shared library, the kernels of which are compiled once for each kind of processor."""

    def get_ext_filename(self, name: str) -> str:
        """No Python in the name, as there is none inside."""
        *package, stem = name.split(".")
        return str(Path(*package, f"{stem}.so"))

    def get_export_symbols(self, _: Extension) -> list[str]:
        """No module either."""
        return []

    def build_extension(self, extension: Extension) -> None:
        """Compiles and links. That it fails is no error, as the extension is optional."""
        objects = self._compile("scheduling.cpp", [])
        offered = []
        for target, (flags, width, rows) in TARGETS.items():
            macros = [f"-DMRA_TARGET={target}", f"-DMRA_VECTOR_BYTES={width}"]
            macros.append(f"-DMRA_TILE_ROWS={rows}")
            try:
                objects += self._compile("kernels.cpp", [*flags, *macros], target)
            except CompileError:
                if target != "avx512_bf16":
                    raise
                continue
            offered.append(f"-DMRA_HAS_{target.upper()}")
        objects += self._compile("library.cpp", offered)
        self.compiler.link_shared_object(
            objects,
            self.get_ext_fullpath(extension.name),
            extra_postargs=FLAGS,
            target_lang="c++",
        )

    def _compile(self, name: str, flags: list[str], folder: str = "") -> list[str]:
        return self.compiler.compile(
            [str(SOURCE / name)],
            output_dir=str(Path(self.build_temp, folder)),
            extra_postargs=[*COMMON, *flags, *FLAGS],
        )


class PlatformWheel(bdist_wheel):
    """One wheel per platform, for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """That of any Python 3."""
        *_, where = super().get_tag()
        return "py3", "none", where


LIBRARY = Extension(
    "mra_plugin.ops.native.libmra",
    sources=[str(path) for path in sorted(SOURCE.glob("*.cpp"))],
    depends=[str(path) for path in sorted(SOURCE.glob("*.h"))],
    language="c++",
    optional=True,
)

setup(
    ext_modules=[] if os.environ.get("MRA_NATIVE") == "0" else [LIBRARY],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
