"""Models whose very first call in a process is traced."""

import subprocess
import sys

import pytest

# Nothing of the attention has run, or was loaded by a run, when the trace begins.
CODE = """
import sys, torch, transformers as tf, mra_plugin
sizes = dict(
    vocab_size=9, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=8, max_position_embeddings=96,
)
source, family = sys.argv[1:]
source = {"transformers": tf, "mra_plugin": mra_plugin}[source]
config = getattr(source, family + "Config")(**sizes)
model = getattr(source, family + "Model")(config).eval()
if source is tf:
    mra_plugin.patch(model, block_size=8, block_per_row=1)
ids = torch.arange(140).view(2, 70) % 9
mask = torch.arange(70)[None] < torch.tensor([[70], [45]])
inputs = dict(input_ids=ids, attention_mask=mask.long())
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
traced = compiled(**inputs)[0]
torch.testing.assert_close(traced, model(**inputs)[0], atol=2e-5, rtol=2e-5)
traced[mask].square().sum().backward()
assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
assert model.get_input_embeddings().weight.grad.abs().sum() > 0
"""


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("transformers", "Bert"),
        pytest.param("transformers", "Mra", marks=pytest.mark.slow),
        pytest.param("transformers", "Nystromformer", marks=pytest.mark.slow),
        ("mra_plugin", "Mra"),
    ],
)
def test_the_first_call_in_a_process_is_traced(source: str, family: str) -> None:
    command = [sys.executable, "-c", CODE, source, family]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
