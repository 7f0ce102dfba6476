"""Queries, keys and values of a pretrained encoder that reads real text."""

from __future__ import annotations

from functools import lru_cache

import torch
from cases import CannotRunError

from mra_plugin.encoders.capture import AttentionInputs, attention_inputs
from mra_plugin.encoders.demo import DEMO_MODEL, DEMO_TEXT, demo_model, demo_text
from mra_plugin.encoders.loading import load_encoder
from mra_plugin.encoders.positions import extend_positions
from mra_plugin.encoders.text import tokenize
from mra_plugin.errors import UserError

MODEL, TEXT = DEMO_MODEL, DEMO_TEXT


@lru_cache(maxsize=1)
def real_inputs(tokens: int, device: torch.device) -> list[AttentionInputs]:
    """What each layer of the demo's encoder attends with, on the first tokens of the demo's text.

    Beyond the length that the encoder learned, its position embeddings are repeated.

    Args:
        tokens: length of the sequence, special tokens included.
        device: where to run the encoder.

    Raises:
        CannotRunError: model or text are not installed.
    """
    try:
        model, tokenizer = load_encoder(demo_model(), device, torch.float32)
        text = tokenize(tokenizer, demo_text(), tokens)
    except UserError as error:
        raise CannotRunError(str(error)) from None
    extend_positions(model, tokens)
    return attention_inputs(model, input_ids=torch.tensor([text.cut(tokens)], device=device))
