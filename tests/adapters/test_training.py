"""A patched encoder learns, and compiles."""

import pytest
import torch
import transformers as tf
from helpers.tiny_models import hidden, inputs_of, make, padded, token_ids

import mra_plugin


@pytest.mark.parametrize("checkpointing", [False, True])
def test_token_classification_learns(checkpointing: bool) -> None:
    torch.manual_seed(0)
    config = tf.RobertaConfig(
        vocab_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=80,
        num_labels=2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = tf.RobertaForTokenClassification(config)
    mra_plugin.patch(model, block_size=8, block_per_row=2)
    if checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    # Each token's label is whether the first token, far away, is even: attention must carry it.
    ids = torch.randint(3, 16, (16, 64))
    labels = (ids[:, :1] % 2).repeat(1, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = model(ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_compiles_without_graph_breaks(family: str) -> None:
    torch._dynamo.reset()
    model = mra_plugin.patch(make(family), block_size=8, block_per_row=2)
    inputs = inputs_of(family, padded())
    out = hidden(model, **inputs)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(hidden(compiled, **inputs), out, atol=2e-5, rtol=2e-5)
    # Parameters that were never used before are built while tracing.
    model.config.mra = {"block_size": 8, "block_per_row": 2, "initial_prior_first_n_blocks": 1}
    changed = hidden(compiled, **inputs)
    assert not torch.allclose(changed, out, atol=1e-3)
    torch.testing.assert_close(hidden(model, **inputs), changed, atol=2e-5, rtol=2e-5)


def test_one_graph_serves_many_lengths() -> None:
    torch._dynamo.reset()
    model = mra_plugin.patch(make("modernbert"), block_size=8, block_per_row=2)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (70, 61, 45):
            inputs = {
                "input_ids": token_ids(tokens=tokens),
                "attention_mask": padded(tokens=tokens, real=40),
            }
            out = hidden(model, **inputs)
            torch.testing.assert_close(hidden(compiled, **inputs), out, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("attention", ["mra", "nystrom"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "eurobert", "vit"])
def test_shapes_on_the_device_meta(family: str, attention: str) -> None:
    model = make(family)
    with torch.device("meta"):
        shapes = mra_plugin.patch(type(model)(model.config), attention=attention)
        inputs = {name: x.to("meta") for name, x in inputs_of(family, padded()).items()}
    out = shapes(**inputs).last_hidden_state
    out.sum().backward()
    assert out.is_meta
    assert out.shape == hidden(model, **inputs_of(family, padded())).shape
