"""Everything on a CPU works where triton is not installed."""

import subprocess
import sys

SCRIPT = """
import sys
sys.modules["triton"] = None  # as if it were not installed

import torch
import mra_plugin
from mra_plugin.ops import mra_attention

x = torch.randn(1, 2, 100, 16, requires_grad=True)
out = mra_attention(x, x, x)
out.sum().backward()
torch.testing.assert_close(out, mra_attention(x, x, x, impl="eager"))
try:
    mra_attention(x, x, x, impl="triton")
except ValueError as error:
    print(error)
"""


def test_without_triton() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "triton is not installed" in done.stdout
