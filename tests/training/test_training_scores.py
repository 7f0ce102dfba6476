"""What evaluations measure, computed by hand."""

import math

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from mra_plugin.training.labels import Scores
from mra_plugin.training.masking import example_losses, perplexity
from mra_plugin.training.qa import AnswerScores

CONTEXT = "The red cat sat, the cat ran."


def test_accuracy_and_f1_of_words() -> None:
    found = np.array([[1, 0, 2, 1], [0, 0, 5, 5]])
    truth = np.array([[1, 2, 2, 0], [0, -100, -100, -100]])
    prediction = EvalPrediction(predictions=found, label_ids=truth)
    # Of three words with a label other than 0 two are found, among three that are claimed.
    assert Scores(0, f1=True)(prediction) == pytest.approx({"accuracy": 3 / 5, "f1": 2 / 3})
    # Where no label stands for nothing, all count.
    assert Scores(None, f1=True)(prediction) == pytest.approx({"accuracy": 3 / 5, "f1": 3 / 5})


def test_accuracy_of_texts() -> None:
    prediction = EvalPrediction(predictions=np.array([1, 0, 1]), label_ids=np.array([1, 0, 0]))
    assert Scores(None, f1=False)(prediction) == pytest.approx({"accuracy": 2 / 3})


def test_exact_match_and_f1_of_answers() -> None:
    """Words of the context are tokens 2 to 8; the question is token 1."""
    words = [(0, 3), (4, 7), (8, 11), (12, 15), (17, 20), (21, 24), (25, 28)]
    places = [None, None, *words, None]
    spans = [(2, 4), (3, 4), (7, 8)]
    truths = [["the red cat"], ["cat", "red cat sat"], ["sat"]]
    starts, ends = np.zeros((2, 3, 12))  # longer than the tokens, as in a batch with padding
    for row, (first, last) in enumerate(spans):
        starts[row, first] = ends[row, last] = 5.0
        starts[row, 1] = ends[row, 10] = 9.0  # outside of the context
    scores = AnswerScores(
        [{"context": CONTEXT, "answers": [{"text": one} for one in texts]} for texts in truths],
        [{"places": places}] * 3,
    )
    found = scores(EvalPrediction(predictions=(starts, ends), label_ids=np.zeros((3, 2))))
    # "red cat" against "red cat sat": all of its words, two thirds of the answer's.
    f1 = [1, 2 * 1 * (2 / 3) / (1 + 2 / 3), 0]
    assert found == pytest.approx({"exact_match": 1 / 3, "f1": sum(f1) / 3})


def test_perplexity_is_over_all_masked_tokens() -> None:
    sure, torn = torch.tensor([50.0, 0, 0, 0]), torch.zeros(4)
    logits = torch.stack([torch.stack([sure, torn, torn]), torch.stack([torn, sure, sure])])
    labels = torch.tensor([[0, 3, -100], [2, -100, 0]])
    kept = example_losses(logits, labels)
    torch.testing.assert_close(kept, torch.tensor([[math.log(4), 2], [math.log(4), 2]]))
    prediction = EvalPrediction(predictions=kept.numpy(), label_ids=labels.numpy())
    assert perplexity(prediction)["perplexity"] == pytest.approx(2.0)  # 4 to the power of 2 of 4
