"""The compiled library: loaded if it is there, or the reason why it can't be.

It is a plain shared library without Python or PyTorch inside, so that one serves all versions of
both. Its threads are PyTorch's own, which it is given a function for.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .call import INTERFACE, Call

# The kernels to take instead of the best ones: "avx512_bf16", "avx512",
# "avx2" or "portable".
_VARIABLE = "MRA_NATIVE_TARGET"
_FILE = Path(__file__).with_name("libmra.so")
_NO_MEMORY = 1


class _Library:
    def __init__(self) -> None:
        library = ctypes.CDLL(str(_FILE))
        library.mra_interface.restype = ctypes.c_int64
        if (found := library.mra_interface()) != INTERFACE:
            raise RuntimeError(
                f"its library has interface {found}, where this version needs {INTERFACE}: "
                "install mra-plugin again"
            )
        self._target_of = library.mra_target
        self._target_of.restype = ctypes.c_char_p
        self._target_of.argtypes = [ctypes.c_char_p]
        self._run = library.mra_run
        self._run.restype = ctypes.c_int64
        self._run.argtypes = [
            ctypes.POINTER(Call),
            ctypes.c_int64,
            ctypes.c_char_p,
            ctypes.c_int64,
            ctypes.c_void_p,
        ]
        self._parallel_for = ctypes.cast(_torch_function("torch_parallel_for"), ctypes.c_void_p)
        self.target = self.find(os.environ.get(_VARIABLE, ""))

    def find(self, target: str) -> str:
        """The kernels that are meant by a name; "" means the best that run here."""
        found: bytes | None = self._target_of(target.encode())
        if found is None:
            raise RuntimeError(f"{_VARIABLE}={target!r} names kernels that can't run here")
        return found.decode()

    def run(self, call: Call, *, backward: bool) -> None:
        """Runs a call; fills in its results."""
        failed = self._run(
            ctypes.byref(call),
            backward,
            self.target.encode(),
            torch.get_num_threads(),
            self._parallel_for,
        )
        if failed:
            assert failed == _NO_MEMORY
            raise MemoryError("no memory for MRA attention")


def _torch_function(name: str) -> ctypes._FuncPointer:
    """A function of PyTorch's stable interface for C."""
    folder = Path(torch.__file__).parent / "lib"
    names = ("libtorch_cpu.so", "libtorch_cpu.dylib")
    (path,) = (folder / one for one in names if (folder / one).exists())
    try:
        found: ctypes._FuncPointer = getattr(ctypes.CDLL(str(path)), name)
    except AttributeError:
        raise RuntimeError(f"PyTorch {torch.__version__} has no {name}") from None
    return found


def _load() -> tuple[_Library | None, str]:
    if not _FILE.exists():
        return (
            None,
            "mra-plugin was installed without a C++ compiler (GCC or Clang)",
        )
    try:
        return _Library(), ""
    except (OSError, RuntimeError, ValueError) as error:
        return None, str(error)


_library, why_missing = _load()


def run(call: Call, *, backward: bool) -> None:
    """Runs a call; fills in its results.

    Raises:
        RuntimeError: there is no library, as on a machine that got a program exported elsewhere.
        MemoryError: there is no room for the work.
    """
    if _library is None:
        raise RuntimeError(f'impl="native" can\'t run here: {why_missing}')
    _library.run(call, backward=backward)


def target() -> str | None:
    """The kind of processor that the kernels in use are made for; None without a library."""
    return _library.target if _library else None


@contextmanager
def using(name: str) -> Iterator[None]:
    """Other kernels for a while, to test them.

    Raises:
        RuntimeError: they can't run here.
    """
    if _library is None:
        raise RuntimeError(why_missing)
    before, _library.target = _library.target, _library.find(name)
    try:
        yield
    finally:
        _library.target = before
