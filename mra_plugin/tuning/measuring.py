"""Measures settings in a model: how close to exact attention they are, and what they take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mra_plugin.adapters.patching import patch
from mra_plugin.encoders.closeness import hidden_states, reading
from mra_plugin.encoders.measure import timed_rounds

from .candidates import Setting
from .documents import Documents
from .result import Metric, Times
from .search import Part

# Rounds of one pass each, with exact attention and without: at least so many, then more of them
# while they take less than these seconds.
_QUICK, _CAREFUL = (3, 0.5), (5, 2.0)

# Neighbours of a document whose order matters to whoever searches.
NEAREST = 3


class ModelBench:
    """Measures settings with two encoders, which have to differ in their attention alone."""

    def __init__(
        self,
        exact: PreTrainedModel,
        other: PreTrainedModel,
        documents: Documents,
        metric: Metric,
    ) -> None:
        """Takes what it measures with.

        Args:
            exact: in evaluation mode, with exact attention.
            other: a copy that takes MRA attention; it is patched again and again.
            documents: to read.
            metric: what closeness means.
        """
        self._exact = exact
        self._other = other
        self._documents = documents
        self._metric = metric
        self._expected: dict[tuple[int, Part], list[Tensor]] = {}
        # What has run at a length, None being exact attention: a first pass takes longer.
        self._warm: set[tuple[Setting | None, int]] = set()

    def closeness(self, setting: Setting, tokens: int, part: Part) -> float:
        """See `search.Bench`."""
        patch(self._other, **setting.options)
        expected = self._expected.get((tokens, part))
        if expected is None:
            expected = self._expected[tokens, part] = self._read(self._exact, tokens, part)
        found = self._read(self._other, tokens, part)
        self._warm |= {(None, tokens), (setting, tokens)}
        if self._metric == "ranking":
            return neighbour_overlap(torch.cat(expected), torch.cat(found))
        return statistics.fmean(
            torch.cosine_similarity(one, other, dim=-1).mean().item()
            for one, other in zip(expected, found, strict=True)
        )

    def times(self, setting: Setting, tokens: int, careful: bool) -> Times:
        """See `search.Bench`."""
        patch(self._other, **setting.options)
        ids = self._input(self._documents.search[0], tokens)
        passes = [partial(_states, model, ids) for model in (self._exact, self._other)]
        with reading(tokens):
            for run, what in zip(passes, (None, setting), strict=True):
                if (what, tokens) not in self._warm:
                    run()
                    self._warm.add((what, tokens))
            seconds = timed_rounds(passes, ids.device, *(_CAREFUL if careful else _QUICK))
        exact, other = map(statistics.median, seconds)
        return Times(seconds=other, exact_seconds=exact)

    def _read(self, model: PreTrainedModel, tokens: int, part: Part) -> list[Tensor]:
        """What counts of each document's output: all tokens' vectors, or their mean, [*, C]."""
        found = []
        for document in self._part(part):
            with reading(tokens):
                states = _states(model, self._input(document, tokens))[0].double()
            found.append(states if self._metric == "token" else states.mean(0, keepdim=True))
        return found

    def _part(self, part: Part) -> Sequence[Sequence[int]]:
        if part == "held out":
            return self._documents.held_out
        # Of one document alone there is no ranking.
        alone = part == "glance" and self._metric != "ranking"
        return self._documents.search[:1] if alone else self._documents.search

    def _input(self, document: Sequence[int], tokens: int) -> Tensor:
        return torch.tensor([self._documents.cut(document, tokens)], device=self._exact.device)


def neighbour_overlap(exact: Tensor, other: Tensor) -> float:
    """Share of each document's nearest others that are its nearest with exact attention too.

    Args:
        exact: vectors of the documents with exact attention, [documents, C].
        other: with another.

    Returns:
        The mean over the documents; with three neighbours each it moves in steps of a third of a
        document.
    """
    marks = []
    for vectors in (exact, other):
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        similar = (unit @ unit.T).fill_diagonal_(-2)
        nearest = similar.nan_to_num(-2).topk(NEAREST, -1).indices
        marks.append(torch.zeros_like(similar, dtype=torch.bool).scatter(-1, nearest, True))
    return ((marks[0] & marks[1]).sum(-1).double() / NEAREST).mean().item()


def _states(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        return hidden_states(model.base_model, ids, torch.ones_like(ids))
