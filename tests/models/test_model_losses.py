"""The loss of every head."""

import pytest
import torch
from helpers.tiny_mra import inputs_of, labels_of, make, padded, token_ids
from torch import Tensor, nn
from torch.nn import functional


@torch.no_grad()
def outputs(model: nn.Module, head: str, **labels: Tensor) -> object:
    return model(**inputs_of(head), **labels)


@pytest.mark.parametrize("head", ["MraForMaskedLM", "MraForTokenClassification"])
def test_token_losses_ignore_minus_100(head: str) -> None:
    model = make(head)
    labels = labels_of(head)["labels"]
    labels[0, :60] = -100
    labels[1, 45:] = -100
    out = outputs(model, head, labels=labels)
    counted = labels != -100
    assert counted.sum() == 55
    torch.testing.assert_close(
        out.loss, functional.cross_entropy(out.logits[counted], labels[counted])
    )


def test_token_classification_ignores_padding() -> None:
    head = "MraForTokenClassification"
    labels = labels_of(head)["labels"]
    out = outputs(make(head), head, labels=labels)
    real = padded().bool()
    torch.testing.assert_close(out.loss, functional.cross_entropy(out.logits[real], labels[real]))


def sequence_model(labels: int, problem_type: str | None = None) -> nn.Module:
    head = "MraForSequenceClassification"
    return make(head, num_labels=labels, problem_type=problem_type)


SCORES = torch.tensor([[0.5, 1.0, 0.0], [1.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("count", "problem_type", "labels"),
    [
        (1, None, torch.tensor([0.5, 2.0])),
        (1, None, torch.tensor([[0.5], [2.0]])),
        (1, None, torch.tensor([1, 2])),
        (3, "regression", SCORES),
        (3, None, torch.tensor([2, 0])),
        (3, "single_label_classification", torch.tensor([2, 0], dtype=torch.int32)),
        (3, None, SCORES.round()),
        (3, "multi_label_classification", SCORES.round().long()),
    ],
)
def test_sequence_losses(count: int, problem_type: str | None, labels: Tensor) -> None:
    head = "MraForSequenceClassification"
    model = sequence_model(count, problem_type)
    out = outputs(model, head, labels=labels)
    assert out.logits.shape == (2, count)
    if count == 1 or problem_type == "regression":
        expected = functional.mse_loss(out.logits, labels.view(2, count).float())
    elif labels.ndim == 1:
        expected = functional.cross_entropy(out.logits, labels.long())
    else:
        expected = functional.binary_cross_entropy_with_logits(out.logits, labels.float())
    torch.testing.assert_close(out.loss, expected)
    assert model.config.problem_type == problem_type


def test_sequence_labels_of_the_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 3\)"):
        outputs(sequence_model(3), "MraForSequenceClassification", labels=torch.tensor([0.5, 1.0]))
    model = sequence_model(3)
    model.config.__dict__["problem_type"] = "ranking"
    with pytest.raises(ValueError, match=r"problem_type.*ranking"):
        outputs(model, "MraForSequenceClassification", labels=SCORES)


def test_multiple_choice() -> None:
    head = "MraForMultipleChoice"
    inputs = {"input_ids": token_ids(6).view(2, 3, 70)}
    labels = torch.tensor([2, 1])
    model = make(head)
    with torch.no_grad():
        out = model(**inputs, labels=labels)
        flat = model.mra(inputs["input_ids"].view(6, 70)).last_hidden_state[:, 0]
        scores = model.classifier(torch.relu(model.pre_classifier(flat)))
    torch.testing.assert_close(out.logits, scores.view(2, 3))
    torch.testing.assert_close(out.loss, functional.cross_entropy(scores.view(2, 3), labels))
    with pytest.raises(ValueError, match=r"\[batch, choices, tokens\]"):
        model(token_ids())


def test_question_answering_ignores_positions_outside() -> None:
    head = "MraForQuestionAnswering"
    model = make(head)
    start, end = torch.tensor([3, 90]), torch.tensor([70, 9])
    out = outputs(model, head, start_positions=start[:, None], end_positions=end)
    assert out.start_logits.shape == out.end_logits.shape == (2, 70)
    expected = (
        functional.cross_entropy(out.start_logits[:1], start[:1])
        + functional.cross_entropy(out.end_logits[1:], end[1:])
    ) / 2
    torch.testing.assert_close(out.loss, expected)

    clamped = outputs(model, head, start_positions=start - 10, end_positions=end)
    from_zero = outputs(model, head, start_positions=torch.tensor([0, 80]), end_positions=end)
    assert clamped.loss == from_zero.loss

    with pytest.raises(ValueError, match="end_positions is missing"):
        outputs(model, head, start_positions=start)
