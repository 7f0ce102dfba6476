"""The model that is trained, and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

import mra_plugin
from mra_plugin.convert.loading import first_line, quiet
from mra_plugin.convert.positions import position_tables

from .config import TrainingConfig
from .errors import TrainingError


def load_tokenizer(name: str, words: bool = False) -> Any:
    """Loads a tokenizer.

    Args:
        name: folder or id.
        words: whether it will be given words instead of texts.

    Raises:
        TrainingError: there is none at ``name``.
    """
    _check_folder(name)
    with _loading(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name)
        if words and getattr(tokenizer, "add_prefix_space", None) is False:
            # Byte-level tokenizers take a word for the inside of one without its space.
            tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True)
        return tokenizer


def load_model(
    config: TrainingConfig, model_class: Any, **settings: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Loads or makes the model in float32, with the attention that the settings ask for.

    Args:
        config: of the run.
        model_class: one of transformers' Auto classes, or a model class.
        **settings: for the model's config.

    Returns:
        (the model, names of its weights that were not in the checkpoint and are random).

    Raises:
        TrainingError: it can't be loaded, or can't take the attention.
    """
    name = config.model
    _check_folder(name)
    fresh: list[str] = []
    with _loading(name, "model"):
        if config.from_scratch:
            model_config = AutoConfig.from_pretrained(name, **settings)
            make = getattr(model_class, "from_config", None) or model_class._from_config
            model = make(model_config).float()
        else:
            model, loading = model_class.from_pretrained(
                name,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a head for other labels starts anew
                **settings,
            )
            mismatched = {key for key, *_ in loading["mismatched_keys"]}
            fresh = sorted({*loading["missing_keys"], *mismatched})
    put_attention(model, config)
    return model, fresh


def put_attention(model: PreTrainedModel, config: TrainingConfig) -> None:
    """Puts in the attention that the settings name, if they name one.

    Raises:
        TrainingError: there is no such attention, or the model can't take it.
    """
    if config.attention is None:
        return
    params = {} if config.block_per_row is None else {"block_per_row": config.block_per_row}
    try:
        mra_plugin.patch(model, attention=config.attention, **params)
    except (LookupError, TypeError, ValueError) as error:
        raise TrainingError(f"can't use attention {config.attention!r}: {error}") from None


def encoder_of(model: Any) -> PreTrainedModel:
    """A model without its heads."""
    encoder: PreTrainedModel = model.base_model
    return encoder


def longest_input(model: PreTrainedModel) -> int | None:
    """Tokens that a model can read; None where its config doesn't say."""
    for table in position_tables(model):
        return table.positions
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def example_length(config: TrainingConfig, model: PreTrainedModel) -> int:
    """Tokens of an example: ``length`` of the settings, or the most that the model can read.

    Raises:
        TrainingError: the model can't read so many, or does not say how many it can.
    """
    limit = longest_input(model)
    if config.length is None and limit is None:
        raise TrainingError(f"length must be given: {config.model!r} names no limit of its own")
    if config.length is not None and limit is not None and config.length > limit:
        raise TrainingError(
            f"length must be at most {limit}, the positions of {config.model!r}, got "
            f"{config.length}; `mra convert` stretches a model"
        )
    return int(config.length or limit or 0)


def fresh_weights(names: list[str]) -> list[str]:
    """Says which weights start at random."""
    if not names:
        return []
    return [f"{len(names)} tensors are not in the checkpoint and start at random: {names[0]}, ..."]


def save_memory(model: PreTrainedModel) -> None:
    """Has a model compute its activations again on the way back instead of keeping them."""
    # The older name of the two, which newer releases of transformers warn about.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)()


def _check_folder(name: str) -> None:
    looks_like_a_path = Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1
    if not Path(name).is_dir() and (looks_like_a_path or Path(name).exists()):
        raise TrainingError(f"there is no folder {name!r}")


@contextmanager
def _loading(name: str, what: str) -> Iterator[None]:
    """Keeps load reports off the terminal, and makes one message of whatever goes wrong."""
    try:
        with quiet():
            yield
    except Exception as error:
        raise TrainingError(f"can't load the {what} of {name!r}: {first_line(error)}") from None
