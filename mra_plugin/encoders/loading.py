"""Checkpoints, loaded as they are stored, with everything that is in them."""

import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.utils import logging as hub_logging
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging
from transformers.utils.hub import cached_file

import mra_plugin
from mra_plugin.adapters.transformers.support import check_class
from mra_plugin.errors import ConversionError

# What published checkpoints hold beside the class that they name: what their pretraining had, and
# buffers that older versions of transformers stored.
_LEFT_OVER = ("pooler", "seq_relationship", "sop_classifier")
_BUFFERS = ("position_ids", "token_type_ids")


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode, its tokenizer, and what of the checkpoint they leave out."""

    model: PreTrainedModel
    tokenizer: Any
    left_out: list[str]


def load_checkpoint(name: str, drop: Collection[str] = ()) -> Checkpoint:
    """Loads the class that a checkpoint names, in the data type that it is stored in.

    A bare encoder without weights for its pooler is loaded without one.

    Args:
        name: a folder, or the id of a model on the hub.
        drop: parts whose tensors may be left out where the class does not read them.

    Raises:
        ConversionError: it can't be loaded, its class can't take another attention, a tensor is
            missing, or one would be lost.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name)
            config = AutoConfig.from_pretrained(name)
    except Exception as error:
        raise ConversionError(f"can't load {name!r}: {first_line(error)}") from None
    model_class = _model_class(config)
    # The weights say it, where a config may say otherwise.
    config.dtype = None
    model, loading = _load(model_class, name, config)
    missing = _without_buffers(loading["missing_keys"])
    only_pooler = all(belongs_to(key, ["pooler"]) for key in missing)
    if missing and only_pooler and _may_lack_pooler(model_class):
        model, loading = _load(model_class, name, config, add_pooling_layer=False)
        missing = _without_buffers(loading["missing_keys"])
    if missing:
        raise ConversionError(
            f"{name!r} has no weights for {len(missing)} tensors of {model_class.__name__}: "
            f"{listed(missing)}"
        )
    left_out = _without_buffers(loading["unexpected_keys"])
    lost = [key for key in left_out if not belongs_to(key, [*_LEFT_OVER, *drop])]
    if lost:
        raise ConversionError(
            f"{name!r} has {len(lost)} tensors that {model_class.__name__} does not read: "
            f"{listed(lost)}; --drop NAME leaves out a part of that name"
        )
    return Checkpoint(model.eval(), tokenizer, left_out)


def reload(
    model_class: Any, folder: Path, dtype: torch.dtype, without_pooler: bool
) -> PreTrainedModel:
    """Loads what was written, and is sure that nothing is missing or left over.

    Args:
        model_class: the class that was written.
        folder: where.
        dtype: to load it in.
        without_pooler: what `lacks_pooler` said of the model.

    Raises:
        ConversionError: a tensor is missing or left over.
    """
    options = {"add_pooling_layer": False} if without_pooler else {}
    model, loading = _load(model_class, str(folder), None, dtype=dtype, **options)
    wrong = _without_buffers([*loading["missing_keys"], *loading["unexpected_keys"]])
    if wrong:
        raise ConversionError(f"what was written does not load: {listed(wrong)}")
    model.eval()
    return model


def is_missing_folder(name: str) -> bool:
    """Whether it is a path without a folder, which transformers would take for an id on the hub."""
    looks_like_a_path = Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1
    return not Path(name).is_dir() and (looks_like_a_path or Path(name).exists())


def is_sentence_transformer(name: str) -> bool:
    """Whether the files of sentence-transformers lie beside a model.

    Args:
        name: a folder, or the id of a model on the hub.
    """
    try:
        with quiet():
            return cached_file(name, "modules.json") is not None
    except OSError:
        return False


def lacks_pooler(model: PreTrainedModel) -> bool:
    """Whether a model was built without the pooler that its class can have."""
    has_one = any(belongs_to(name, ["pooler"]) for name, _ in model.named_parameters())
    return _may_lack_pooler(type(model)) and not has_one


def _may_lack_pooler(model_class: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters


def _model_class(config: PreTrainedConfig) -> Any:
    names = config.architectures or []
    if len(names) != 1:
        raise ConversionError(
            f"config.json must name the model's class in architectures, got {names or None}"
        )
    source = mra_plugin if config.model_type == "mra" else transformers
    model_class = getattr(source, names[0], None)
    if model_class is None:
        raise ConversionError(f"config.json names the class {names[0]}, which is not known")
    try:
        check_class(model_class, config)
    except ValueError as error:
        raise ConversionError(str(error)) from None
    if model_class.main_input_name != "input_ids":
        raise ConversionError(f"{names[0]} does not read text but {model_class.main_input_name}")
    return model_class


def _load(
    model_class: Any, name: str, config: PreTrainedConfig | None, **options: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    try:
        with quiet():
            model, loading = model_class.from_pretrained(
                name, config=config, output_loading_info=True, **{"dtype": "auto", **options}
            )
    except Exception as error:
        raise ConversionError(f"can't load {name!r}: {first_line(error)}") from None
    return model, loading


def _without_buffers(keys: Collection[str]) -> list[str]:
    return sorted(key for key in keys if key.split(".")[-1] not in _BUFFERS)


def belongs_to(key: str, parts: Collection[str]) -> bool:
    """Whether a tensor's name leads through a module of one of these names."""
    return not set(parts).isdisjoint(key.split("."))


def listed(names: Collection[str]) -> str:
    """Names in a line, the first few of many."""
    names = list(names)
    rest = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + rest


def first_line(error: Exception) -> str:
    """What transformers says first; the advice that follows is about other programs."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()


@contextmanager
def quiet() -> Iterator[None]:
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
