"""The compiled kernels: every set of them, any number of threads, memory, odd inputs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.agreement import compare
from helpers.attention_calls import padding_mask, random_inputs, run
from helpers.native_fuzz import TARGETS, fuzz, targets_here

from mra_plugin.ops import mra_attention
from mra_plugin.ops.native import library

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
INFO = Path("/proc/cpuinfo")
PROCESSOR = INFO.read_text() if INFO.exists() else ""
CLOSE = {"coarse_key_size": 4, "salient_keys": 5, "block_score": "mass", "selection": "per_row"}

needs_library = pytest.mark.skipif(bool(library.why_missing), reason=library.why_missing)


@pytest.mark.skipif(not COMPILER, reason="there is no C++ compiler")
def test_where_there_is_a_compiler_it_is_there() -> None:
    assert not library.why_missing
    x = random_inputs(1, 1, 200, dtype=torch.float32)
    assert torch.equal(mra_attention(*x), mra_attention(*x, impl="native"))


def test_without_a_library_other_implementations_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    from mra_plugin.ops import native

    monkeypatch.setattr(native, "why_missing", "nobody compiled it")
    inputs = random_inputs(1, 1, 200, dtype=torch.float32)
    assert torch.equal(mra_attention(*inputs), mra_attention(*inputs, impl="eager"))
    with pytest.raises(ValueError, match='impl="native" can\'t serve this call: nobody compiled'):
        mra_attention(*inputs, impl="native")


@needs_library
def test_a_library_that_does_not_fit_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library, "INTERFACE", -1)
    assert "install mra-plugin again" in library._load()[1]
    monkeypatch.setattr(library, "_FILE", tmp_path / "none.so")
    assert "without a C++ compiler" in library._load()[1]
    (tmp_path / "none.so").write_bytes(b"no library")
    assert "none.so" in library._load()[1]


@needs_library
def test_kernels_that_are_asked_for_by_name() -> None:
    done = [
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from mra_plugin.ops.native import library as one; "
                "print(one.target(), one.why_missing)",
            ],
            env={**os.environ, "MRA_NATIVE_TARGET": name},
            capture_output=True,
            text=True,
        ).stdout
        for name in ("portable", "abacus")
    ]
    assert done[0] == "portable \n"
    assert "MRA_NATIVE_TARGET='abacus' names kernels that can't run here" in done[1]


@needs_library
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", targets_here())
def test_every_set_of_kernels_agrees(target: str, dtype: torch.dtype) -> None:
    inputs = random_inputs(2, 2, 300, channels=24, value_channels=40, dtype=dtype)
    mask = padding_mask([300, 171], 300)
    with library.using(target):
        compare("native", inputs, mask, block_size=32, block_per_row=2)
        compare("native", inputs, mask, block_size=16, block_per_row=3, **CLOSE)


@needs_library
@pytest.mark.skipif(
    "avx512_bf16" not in targets_here(), reason="the processor multiplies no pairs of bfloat16"
)
def test_pairs_serve_bfloat16_alone() -> None:
    """Their weights are rounded, which shows that it was they."""
    for dtype, same in ((torch.float32, True), (torch.bfloat16, False)):
        inputs = random_inputs(1, 1, 200, dtype=dtype)
        with library.using("avx512"):
            without = mra_attention(*inputs, impl="native")
        with library.using("avx512_bf16"):
            assert torch.equal(mra_attention(*inputs, impl="native"), without) == same


@pytest.mark.skipif(
    "avx512_bf16" not in PROCESSOR or not COMPILER, reason="not this processor, or no compiler"
)
def test_the_best_kernels_are_there_and_come_first() -> None:
    assert targets_here() == list(TARGETS)
    assert "MRA_NATIVE_TARGET" in os.environ or library.target() == TARGETS[0]


@needs_library
@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"block_per_row": 3}, torch.float32),
        ({"block_per_row": 2, **CLOSE}, torch.float32),
        ({"block_per_row": 2, **CLOSE}, torch.bfloat16),
    ],
)
def test_any_number_of_threads_gives_the_same_bits(
    options: dict[str, object], dtype: torch.dtype
) -> None:
    inputs = random_inputs(2, 3, 700, dtype=dtype)
    mask = padding_mask([700, 333], 700)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(run(inputs, mask, block_size=16, impl="native", **options))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_library
def test_calls_from_many_threads_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    inputs = random_inputs(1, 3, 300, dtype=torch.float32)
    expected = mra_attention(*inputs, impl="native")
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(mra_attention, *inputs, impl="native") for _ in range(16)]
        assert all(torch.equal(call.result(), expected) for call in calls)


@needs_library
def test_heads_that_lie_beyond_2_31_elements() -> None:
    """What is not written takes no memory: the heads are far apart in a room of 4 GiB."""
    apart = 2**31 + 64
    room = torch.empty(apart + 200 * 16, dtype=torch.bfloat16)
    far = room.as_strided((1, 2, 200, 16), (0, apart, 16, 1))
    near = random_inputs(1, 2, 200, dtype=torch.bfloat16)[0]
    far.copy_(near)
    expected = mra_attention(near, near, near, block_size=16, impl="native")
    assert torch.equal(mra_attention(far, far, far, block_size=16, impl="native"), expected)


@needs_library
def test_odd_calls_of_all_kinds() -> None:
    fuzz(60)


@needs_library
@pytest.mark.slow
def test_odd_calls_leave_memory_whole(tmp_path: Path) -> None:
    """With the address and undefined-behaviour sanitizers of the compiler."""
    checks = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g1"
    built = subprocess.run(
        [
            *(sys.executable, "setup.py", "build_ext"),
            *("--build-lib", str(tmp_path), "--build-temp", str(tmp_path / "objects")),
        ],
        cwd=ROOT,
        env={**os.environ, "MRA_NATIVE_FLAGS": checks},
        capture_output=True,
        text=True,
    )
    (file,) = tmp_path.rglob("libmra.so")
    assert built.returncode == 0, built.stderr
    names = ("libasan.so", "libubsan.so")
    find = [str(COMPILER), *(f"-print-file-name={name}" for name in names)]
    found = [
        subprocess.run([find[0], one], capture_output=True, text=True).stdout.strip()
        for one in find[1:]
    ]
    done = subprocess.run(
        [sys.executable, "-m", "helpers.native_fuzz", str(file), "400"],
        cwd=ROOT / "tests",
        # Python itself gives up its memory when it ends only.
        env={**os.environ, "LD_PRELOAD": ":".join(found), "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert done.stdout.startswith("400 calls")
