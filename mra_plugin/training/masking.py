"""Masked-LM batches, their loss and their perplexity."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForLanguageModeling, EvalPrediction

from .losses import IGNORED


@dataclass
class NumberedMasking(DataCollatorForLanguageModeling):
    """Masks each example by the seed and the example's number alone.

    So the masks are new in each pass over the data, and yet the same after a resumption and for
    any number of processes.
    """

    seed: int = 0

    def torch_call(self, examples: list[Any]) -> dict[str, Tensor]:
        """Makes a batch.

        Args:
            examples: {"input_ids": token ids, "number": int} each.

        Returns:
            int64 [B, N] each: ``input_ids``, ``attention_mask``, and ``labels``, which are
            `IGNORED` where nothing was masked.
        """
        special = torch.tensor(self.tokenizer.all_special_ids)
        inputs, labels = [], []
        for example in examples:
            self.generator = torch.Generator().manual_seed(
                (self.seed * 2**40 + example["number"]) % 2**63
            )
            ids = torch.tensor([example["input_ids"]])
            masked, targets = self.torch_mask_tokens(ids, torch.isin(ids, special))
            inputs.append(masked[0])
            labels.append(targets[0])
        batch = padded(inputs, self.tokenizer.pad_token_id)
        return {**batch, "labels": pad_sequence(labels, True, IGNORED)}


def padded(rows: list[Tensor], padding: int | None) -> dict[str, Tensor]:
    """Rows of token ids as ``input_ids`` and ``attention_mask``, int64 [B, N] both."""
    mask = pad_sequence([torch.ones_like(row) for row in rows], True, 0)
    return {"input_ids": pad_sequence(rows, True, padding or 0), "attention_mask": mask}


def example_losses(logits: Any, labels: Tensor) -> Tensor:
    """Sum of the masked tokens' cross-entropies and their count, [B, 2]: all that perplexity needs.

    Args:
        logits: [B, N, vocabulary], alone or first of a tuple.
        labels: [B, N], `IGNORED` where nothing is masked.
    """
    if isinstance(logits, tuple):
        logits = logits[0]
    losses = cross_entropy(
        logits.transpose(1, 2).float(), labels, ignore_index=IGNORED, reduction="none"
    )
    return torch.stack((losses.sum(1), (labels != IGNORED).sum(1)), 1)


def perplexity(prediction: EvalPrediction) -> dict[str, float]:
    """Perplexity over all masked tokens of an evaluation, from `example_losses`."""
    total, count = np.asarray(prediction.predictions).sum(0)
    return {"perplexity": math.exp(min(total / max(count, 1), 700))}
