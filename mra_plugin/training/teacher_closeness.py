"""How close a model is to its exact teacher, on text that neither was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mra_plugin.encoders.closeness import cosines, hidden_states

from .packing import packed_list
from .text_data import Documents

# Examples of each length.
EXAMPLES = 4


class TeacherCloseness:
    """The distance to the teacher at several lengths, before training and after."""

    def __init__(
        self,
        teacher: PreTrainedModel,
        documents: Documents,
        tokenizer: Any,
        lengths: Sequence[int],
    ) -> None:
        """Reads as much of the documents as it needs.

        Args:
            teacher: encoder with exact attention.
            documents: rows {"text": str}.
            tokenizer: of both models.
            lengths: tokens of an example; one that the documents can't fill is left out.
        """
        self._teacher = teacher
        self._examples: dict[int, list[list[int]]] = {}
        for length in sorted(lengths):
            packed = packed_list(documents, tokenizer, length, EXAMPLES)
            full = [one["input_ids"] for one in packed if len(one["input_ids"]) == length]
            if full:
                self._examples[length] = full

    @property
    def lengths(self) -> list[int]:
        """The lengths that are measured."""
        return list(self._examples)

    def measure(self, encoder: PreTrainedModel) -> list[dict[str, float]]:
        """Cosines to the teacher's last hidden states.

        Args:
            encoder: goes to the teacher's device; left in evaluation mode.

        Returns:
            For each length: ``tokens``, ``examples``, ``token_cosine`` (mean over the tokens) and
            ``sentence_cosine`` (of the mean of all tokens), averaged over the examples.
        """
        teacher, device = self._teacher, self._teacher.device
        nn.Module.to(encoder, device).eval()
        rows = []
        for length, examples in self._examples.items():
            pairs = []
            for ids in examples:
                inputs = torch.tensor([ids], device=device)
                mask = torch.ones_like(inputs)
                exact, ours = (hidden_states(one, inputs, mask) for one in (teacher, encoder))
                pairs.append(cosines(exact, ours, mask))
            tokens, sentences = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
            rows.append(
                {
                    "tokens": length,
                    "examples": len(examples),
                    "token_cosine": tokens,
                    "sentence_cosine": sentences,
                }
            )
        return rows
