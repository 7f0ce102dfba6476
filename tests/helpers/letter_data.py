"""Random models that read single letters, and texts for them."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [*SPECIAL.values(), *LETTERS]


def letter_tokenizer() -> PreTrainedTokenizerFast:
    ids = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)


def save_model(model_class: type[PreTrainedModel], folder: Path, **config: Any) -> Path:
    """Saves a small random model without dropout, and its tokenizer."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }
    model_class(model_class.config_class(**{**sizes, **config})).save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return folder


def save_texts(folder: Path, count: int) -> Path:
    """Saves pieces of the repeated alphabet, a document each."""
    folder.mkdir()
    numbers = random.Random(0)
    for start in range(count):
        letters = (LETTERS * 9)[start : start + numbers.randint(30, 200)]
        (folder / f"{start}.txt").write_text(" ".join(letters))
    return folder


def save_lines(file: Path, rows: Iterable[object]) -> Path:
    """Saves JSON lines; texts are written as they are."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("\n".join(lines) + "\n")
    return file


def losses(out: Path) -> list[tuple[int, float]]:
    """Step and loss of each line of a run's log."""
    state = json.loads((out / "trainer_state.json").read_text())
    return [(one["step"], one["loss"]) for one in state["log_history"] if "loss" in one]
