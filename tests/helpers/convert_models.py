"""Tiny models to convert, on top of those of other tests."""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers as tf
from torch import Tensor, nn

import mra_plugin
from helpers import layer_families, tiny_models
from helpers.letter_models import SIZES, save_tokenizer

# Tokens that the learned position tables serve; RoBERTa's config counts two rows more.
LEARNED = 48
# As sizes of BERT and RoBERTa in the MRA family.
WIDE = {"hidden_size": 64, "max_position_embeddings": LEARNED, "initializer_range": 0.2}
FAMILY = {
    "bert": "Bert",
    "camembert": "Camembert",
    "data2vec-text": "Data2VecText",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
}


def _tiny(family: str, **more: object) -> Callable[[], nn.Module]:
    return lambda: tiny_models.make(family, **more)


def _of(model_class: type, **more: object) -> Callable[[], nn.Module]:
    sizes = {**tiny_models._SIZES, **more}
    return lambda: model_class(model_class.config_class(**sizes)).eval()


LEARNED_POSITIONS: dict[str, Callable[[], nn.Module]] = {
    **{
        family: _tiny(family)
        for family in tiny_models.TEXT
        if family not in ("esm", "eurobert", "modernbert")
    },
    "bert-generation": _of(tf.BertGenerationEncoder),
    "esm": _of(tf.EsmModel, position_embedding_type="absolute", mask_token_id=3),
    "mobilebert": _of(
        tf.MobileBertModel, embedding_size=32, intra_bottleneck_size=32, initializer_range=0.1
    ),
    "mra": lambda: layer_families.make("Mra"),
    "nystromformer": lambda: layer_families.make("Nystromformer"),
    "own mra": lambda: mra_plugin.MraModel(
        mra_plugin.MraConfig(**{**tiny_models._SIZES, "hidden_size": 64, "block_per_row": 1})
    ).eval(),
    "own nystromformer": lambda: mra_plugin.NystromformerModel(
        mra_plugin.NystromformerConfig(**{**tiny_models._SIZES, "num_landmarks": 16})
    ).eval(),
    "xlm-roberta-xl": _of(tf.XLMRobertaXLModel),
    "xmod": _of(tf.XmodModel, default_language="en_XX", languages=["en_XX"]),
}
ROTARY: dict[str, Callable[[], nn.Module]] = {
    family: _tiny(family) for family in ("esm", "eurobert", "modernbert")
}


def save(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def make(name: str, **more: object) -> nn.Module:
    """A model by the name of its class that reads letters, with `LEARNED` positions."""
    torch.manual_seed(0)
    model_class = getattr(tf, name)
    sizes = {**SIZES, **WIDE, "num_labels": 3 if "Answering" not in name else 2, **more}
    if not name.startswith("Bert"):
        sizes["pad_token_id"] = 1
        sizes["max_position_embeddings"] = LEARNED + 2
    model = model_class(model_class.config_class(**sizes)).eval()
    # Biases and norms that would be 0 and 1 otherwise.
    generator = torch.Generator().manual_seed(1)
    for one in model.parameters():
        if one.ndim == 1:
            one.data += torch.randn(one.shape, generator=generator) * 0.1
    return model


def read(model: nn.Module, length: int, **inputs: Tensor) -> Tensor:
    """What a model gives first for so many letters, [1, N, hidden] for one without a head."""
    ids = 5 + torch.arange(length)[None] * 7 % 20
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}
    if type(model).__name__.endswith("ForMultipleChoice"):
        inputs = {name: one[:, None] for name, one in inputs.items()}
    with torch.inference_mode():
        first: Tensor = model(**inputs).to_tuple()[0]
    return first
