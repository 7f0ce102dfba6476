"""Lets these tests use the tiny models of the adapters' tests also when they run alone."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
