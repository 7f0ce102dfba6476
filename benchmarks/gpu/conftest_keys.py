"""Where results wait that pytest-benchmark does not collect."""

from typing import Any

import pytest

STAGES = pytest.StashKey[list[dict[str, Any]]]()
LAUNCHES = pytest.StashKey[list[dict[str, Any]]]()
