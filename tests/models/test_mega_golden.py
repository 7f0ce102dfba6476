"""Agreement with transformers 4, from weights, inputs, outputs and gradients that it made."""

import importlib.util
from pathlib import Path

import pytest
import torch

import mra_plugin

FAMILIES = Path(__file__).parents[3] / "shared" / "families"
CASES = sorted((FAMILIES / "golden").glob("mega_*.npz"))

pytestmark = pytest.mark.skipif(not CASES, reason=f"the original's outputs are not at {FAMILIES}")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    spec = importlib.util.spec_from_file_location("check_golden", FAMILIES / "check_golden.py")
    check_golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_golden)
    case = check_golden.Case(path, mra_plugin, torch.float64)
    case.check(extra=True)
    # Its tables of rotary positions, and its constants, are single precision.
    assert max(case.errors.values()) < 3e-6, case.errors
