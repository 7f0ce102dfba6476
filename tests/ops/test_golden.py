"""Agreement with the original algorithm, from inputs, outputs and gradients that it made."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.agreement import HERE
from helpers.attention_calls import relative_error

from mra_plugin.ops import mra_attention

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
NAMES = ("mra2_full", "mra2_full_padded", "mra2_full_priors", "mra2_sparse")

pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"the original's outputs are not at {GOLDEN}"
)


# The original adds 1e-6 to its pools and rounds its softmax shift, which bounds the agreement.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("impl", ["reference", *HERE])
@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, impl: str, dtype: torch.dtype) -> None:
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = dict(file)
    query, key, value = (
        torch.tensor(arrays[part], dtype=dtype).requires_grad_()
        for part in ("query", "key", "value")
    )
    out = mra_attention(
        query,
        key,
        value,
        torch.tensor(arrays["mask"]),
        torch.tensor(arrays["mask"]),
        block_size=int(arrays["block_size"]),
        num_blocks=int(arrays["num_blocks"]),
        approx_mode=str(arrays["approx_mode"]),
        initial_prior_first_n_blocks=int(arrays["initial_prior_first_n_blocks"]),
        initial_prior_diagonal_n_blocks=int(arrays["initial_prior_diagonal_n_blocks"]),
        impl=impl,
    )
    out.backward(torch.tensor(arrays["grad_output"], dtype=dtype))
    results = {
        "output": out.detach(),
        "grad_query": query.grad,
        "grad_key": key.grad,
        "grad_value": value.grad,
    }
    errors = {
        part: relative_error(result, torch.tensor(arrays[part])) for part, result in results.items()
    }
    assert all(error < 5e-6 for error in errors.values()), errors
