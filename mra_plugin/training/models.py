"""The model that is trained, and its tokenizer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from mra_plugin.adapters.patching import patch
from mra_plugin.encoders.loading import load_weights
from mra_plugin.encoders.positions import longest_input
from mra_plugin.encoders.pretrained import OWN_CODE_ONLY, check_folder, loading
from mra_plugin.errors import UserError
from mra_plugin.parallel.shards import attends_across
from mra_plugin.parallel.ulysses import NAME

from .config import TrainingConfig


def load_tokenizer(name: str, words: bool = False) -> Any:
    """Loads a tokenizer.

    Args:
        name: folder or id.
        words: whether it will be given words instead of texts.

    Raises:
        UserError: there is none at ``name``.
    """
    check_folder(name)
    with loading(f"the tokenizer of {name!r}"):
        tokenizer = AutoTokenizer.from_pretrained(name, **OWN_CODE_ONLY)
        if words and getattr(tokenizer, "add_prefix_space", None) is False:
            # Byte-level tokenizers take a word for the inside of one without its space.
            tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True, **OWN_CODE_ONLY)
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
        (the model, what the user should know of it: weights that were not in the checkpoint and
        are random, weights of the checkpoint that it has no use for).

    Raises:
        UserError: it can't be loaded, or can't take the attention.
    """
    name = config.model
    check_folder(name)
    called = f"the model of {name!r}"
    notes: list[str] = []
    if config.from_scratch:
        with loading(called):
            model_config = AutoConfig.from_pretrained(name, **OWN_CODE_ONLY, **settings)
            if hasattr(model_class, "from_config"):
                model = model_class.from_config(model_config, **OWN_CODE_ONLY).float()
            else:
                model = model_class._from_config(model_config).float()
    else:
        # A head for other labels starts anew.
        given = {"dtype": torch.float32, "ignore_mismatched_sizes": True, **settings}
        model, told = load_weights(model_class, name, called, **given)
        mismatched = {key for key, *_ in told["mismatched_keys"]}
        notes = [
            *_note({*told["missing_keys"], *mismatched}, "start at random"),
            *_note(told["unexpected_keys"], "of the checkpoint are not used"),
        ]
    put_attention(model, config)
    return model, notes


def example_length(config: TrainingConfig, model: PreTrainedModel) -> int:
    """Tokens of an example: ``length`` of the settings, or the most that the model can read.

    Raises:
        UserError: the model can't read so many, or does not say how many it can.
    """
    limit = longest_input(model)
    if config.length is None and limit is None:
        raise UserError(f"length must be given: {config.model!r} names no limit of its own")
    if config.length is not None and limit is not None and config.length > limit:
        raise UserError(
            f"length must be at most {limit}, the positions of {config.model!r}, got "
            f"{config.length}; `mra convert` stretches a model"
        )
    return int(config.length or limit or 0)


def check_padding(config: TrainingConfig, tokenizer: Any) -> None:
    """Checks that examples of different lengths can share a batch.

    Raises:
        UserError: the tokenizer has no padding token.
    """
    if tokenizer.pad_token is None:
        raise UserError(f"the tokenizer of {config.model!r} has no padding token to fill batches")


def put_attention(model: PreTrainedModel, config: TrainingConfig) -> None:
    """Puts in the attention that the settings name, if they name one.

    Raises:
        UserError: there is no such attention, the model can't take it, or the model has one
            for shards of sequences.
    """
    params = {} if config.block_per_row is None else {"block_per_row": config.block_per_row}
    try:
        if config.attention is not None:
            patch(model, attention=config.attention, preset=config.preset, **params)
        sharded = attends_across(model.config)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"can't use attention {config.attention!r}: {error}") from None
    if sharded:  # it would take the examples of all processes for parts of one
        raise UserError(
            f"attention {NAME!r} is for sequences in shards, and `mra train` gives each process "
            "whole ones; its own training loop is in docs/scaling.md"
        )


def encoder_of(model: Any) -> PreTrainedModel:
    """A model without its heads."""
    encoder: PreTrainedModel = model.base_model
    return encoder


def known_labels(config: TrainingConfig) -> dict[int, str]:
    """The labels that a checkpoint's config names, by number.

    Raises:
        UserError: there is no config.
    """
    with loading(f"the config of {config.model!r}"):
        return AutoConfig.from_pretrained(config.model, **OWN_CODE_ONLY).id2label or {}


def save_memory(model: PreTrainedModel) -> None:
    """Has a model compute its activations again on the way back instead of keeping them."""
    # The older name of the two, which newer releases of transformers warn about.
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)()


def _note(names: Collection[str], what: str) -> list[str]:
    return [f"{len(names)} tensors {what}, such as {min(names)}"] if names else []
