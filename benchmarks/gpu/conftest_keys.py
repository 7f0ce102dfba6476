"""Where results wait that pytest-benchmark does not collect."""

from typing import Any

import pytest

LAUNCHES = pytest.StashKey[list[dict[str, Any]]]()
