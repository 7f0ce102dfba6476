"""What the preset "close" adds, by kernels in Triton's interpreter, against the reference."""

from typing import Any

import pytest
import torch
from helpers.attention_calls import padding_mask, random_inputs
from helpers.interpreted import LIMITS, compare

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("_interpreter")]

CELLS = {"block_size": 16, "block_per_row": 2, "coarse_key_size": 4}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("options", [
    {**CELLS},
    {**CELLS, "block_score": "mass", "selection": "per_row"},
    {**CELLS, "block_score": "mass", "initial_prior_diagonal_n_blocks": 2},
])  # fmt: skip
def test_cells_of_keys(dtype: torch.dtype, options: dict[str, Any]) -> None:
    compare(random_inputs(1, 2, 70, 90, dtype=dtype), padding_mask([81], 90), **options)
