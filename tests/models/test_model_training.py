"""A short training run of every head lowers its loss."""

import pytest
import torch
from helpers.tiny_mra import HEADS, inputs_of, labels_of, make


@pytest.mark.parametrize("head", HEADS[1:])
def test_training_lowers_the_loss(head: str) -> None:
    model = make(head, initializer_range=0.02, hidden_dropout_prob=0.0).train()
    inputs = {**inputs_of(head, batch=4), **labels_of(head, batch=4)}
    if head == "MraForMultipleChoice":
        # The choices differ, or there would be nothing to learn.
        inputs["input_ids"] = inputs["input_ids"].roll(1, 0) + torch.arange(3)[:, None]
        inputs["input_ids"].clamp_(max=63)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2, losses
