import pytest
import torch
from torch import Tensor, nn

from mra_plugin.encoders import measure
from mra_plugin.encoders.closeness import cosines
from mra_plugin.encoders.measure import Cost, compare_encoders, peak_memory

CPU = torch.device("cpu")


class Fake(nn.Module):
    """Returns what it was made with, and notes its calls."""

    def __init__(self, name: str, output: Tensor, calls: list[str]) -> None:
        super().__init__()
        self.name, self.output, self.calls = name, output, calls

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> "Fake":
        assert attention_mask.all()
        self.calls.append(self.name)
        return self

    @property
    def last_hidden_state(self) -> Tensor:
        return self.output


def test_rounds_alternate_after_a_first_pass_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 0.0)
    calls: list[str] = []
    said: list[str] = []
    output = torch.randn(1, 5, 4)
    models = {name: Fake(name, output, calls) for name in ("exact", "a", "b")}
    exact = models.pop("exact")
    found = compare_encoders(exact, models, torch.ones(1, 5, dtype=torch.long), said.append)
    assert calls == ["exact", "a", "b"] * (1 + measure.MIN_ROUNDS)
    assert said[:2] == ["5 tokens, exact: first pass", "5 tokens, a: first pass"]
    assert found["a"].tokens == 5
    assert len(found["b"].approximate.times) == measure.MIN_ROUNDS
    assert found["a"].exact is found["b"].exact


def test_rounds_end_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SECONDS", 1e9)
    calls: list[str] = []
    exact, other = (Fake(name, torch.ones(1, 2, 2), calls) for name in ("exact", "a"))
    compare_encoders(exact, {"a": other}, torch.ones(1, 2, dtype=torch.long), lambda what: None)
    assert len(calls) == 2 * (1 + measure.MAX_ROUNDS)


def test_cost_is_the_median_with_its_spread() -> None:
    cost = Cost((1.0, 4.0, 2.0), None)
    assert cost.seconds == 2.0
    assert cost.spread == 0.75


def test_cosines() -> None:
    exact = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    other = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [-9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    tokens, sentence = cosines(exact, other, mask)
    assert tokens == pytest.approx(0.5)
    assert sentence == pytest.approx(2**-0.5)


def test_peak_memory_counts_what_is_held_at_a_time() -> None:
    ready = torch.zeros(1 << 20)

    def run() -> Tensor:
        first = ready + 1  # 4 MiB
        second = first + 1  # and 4 MiB
        del first
        return second + 1  # 4 MiB, in place of the first

    result, peak = peak_memory(run, CPU)
    assert result[0] == 3
    # The ones are tensors too, of a few bytes.
    assert peak == pytest.approx(2 * 4 * 2**20, abs=100)


def test_peak_memory_sees_inside_operators() -> None:
    square = torch.zeros(512, 512)
    # A softmax of a transposed input works on a contiguous copy, which no caller ever sees.
    _, peak = peak_memory(lambda: torch.softmax(square.T, -1), CPU)
    assert peak == pytest.approx(2 * square.nbytes, rel=0.05)


def test_peak_memory_elsewhere_is_unknown() -> None:
    assert peak_memory(lambda: torch.ones(2), torch.device("meta"))[1] is None
