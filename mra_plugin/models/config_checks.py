"""What every config of this package's families refuses, in the same words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def check_encoder_config(config: Any, counts: Iterable[str], probabilities: Iterable[str]) -> None:
    """Refuses values that no encoder with heads of attention can be built with.

    Args:
        config: a config whose fields have the right types.
        counts: fields that must be at least 1.
        probabilities: fields that must lie between 0 and 1.

    Raises:
        ValueError: names a field, its value and what is right.
    """
    for name in counts:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    for name in probabilities:
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {getattr(config, name)}")
    if not config.layer_norm_eps >= 0:
        raise ValueError(f"layer_norm_eps must be at least 0, got {config.layer_norm_eps}")
    if not config.num_labels:
        raise ValueError(f"num_labels must be at least 1, got {config.num_labels}")
    if config.problem_type is not None and config.problem_type not in _PROBLEM_TYPES:
        raise ValueError(
            f"problem_type must be None or one of {_PROBLEM_TYPES}, got {config.problem_type!r}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise ValueError(
            f"hidden_size must be a multiple of num_attention_heads, got {config.hidden_size} "
            f"and {config.num_attention_heads}"
        )
    # transformers may be in the middle of loading its activations when a config is loaded.
    from transformers.activations import ACT2FN

    if config.hidden_act not in ACT2FN:
        raise ValueError(
            f"hidden_act must name an activation of transformers "
            f"({', '.join(sorted(ACT2FN))}), got {config.hidden_act!r}"
        )
    if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
        raise ValueError(
            f"pad_token_id must be None or a row of the word table (vocab_size="
            f"{config.vocab_size}), got {config.pad_token_id}"
        )
