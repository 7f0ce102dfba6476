"""Installs each wheel of a folder by itself, without network or compiler, and attends with it.

Usage: python .ci/check_wheels.py dist
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ATTEND = """
import torch
import mra_plugin.ops
from mra_plugin.ops import mra_attention
from mra_plugin.ops.native import library

x = torch.randn(1, 2, 300, 16)
torch.testing.assert_close(mra_attention(x, x, x), mra_attention(x, x, x, impl="reference"))
print(mra_plugin.ops.__file__)
print(library.why_missing or f"kernels for {library.target()}")
"""


def install(wheel: Path, folder: Path) -> Path:
    """An environment with the wheel, which borrows all else from this one; returns its programs."""
    venv.create(folder, symlinks=os.name != "nt")
    (packages,) = folder.glob("[Ll]ib/**/site-packages")
    # Only where modules lie: an editable installation over there stays out.
    borrowed = [place for place in sys.path if place.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    (programs,) = (path.parent for path in folder.glob("[bS]*/python*") if path.stem == "python")
    command = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    options = ["--quiet", "--no-index", "--no-deps", "--ignore-installed"]
    subprocess.run([*command, *options, str(wheel)], check=True)
    return programs


def check(wheel: Path) -> str:
    """What computes attention in an environment with the wheel; raises if it doesn't work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        programs = install(wheel, folder)

        def said(*command: str) -> str:
            where = {"cwd": folder, "env": {"PATH": "", "COLUMNS": "200"}}
            done = subprocess.run(command, check=True, capture_output=True, text=True, **where)
            return done.stdout

        place, computed = said(str(programs / "python"), "-I", "-c", ATTEND).splitlines()
        if not Path(place).is_relative_to(folder):
            raise SystemExit(f"{wheel.name}: {place} was imported, not the wheel")
        if wheel.stem.endswith("-any") == computed.startswith("kernels for "):
            raise SystemExit(f"{wheel.name}: {computed}")
        version = wheel.name.split("-")[1]
        if f"mra-plugin {version}," not in said(str(programs / "mra"), "info"):
            raise SystemExit(f"{wheel.name}: mra info does not say version {version}")
    return computed


if __name__ == "__main__":
    wheels = sorted(Path(sys.argv[1]).glob("*.whl"))
    if not wheels:
        raise SystemExit(f"no wheel in {sys.argv[1]}")
    for wheel in wheels:
        print(f"{wheel.name}: {check(wheel)}")
