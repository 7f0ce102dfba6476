"""Encoders from a folder or the hub: bare and exact, or whole checkpoints as they are stored."""

import copy
import inspect
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from mra_plugin.adapters.transformers.support import check_class, check_modules
from mra_plugin.errors import UserError
from mra_plugin.models.families import model_class as class_of

from .exact import make_exact
from .pretrained import OWN_CODE_ONLY, check_folder, loading
from .tensors import belongs_to, listed, without_buffers

# What published checkpoints hold beside the class that they name: what their pretraining had.
_LEFT_OVER = ("pooler", "seq_relationship", "sop_classifier")


@dataclass(frozen=True)
class Checkpoint:
    """A model in evaluation mode, its tokenizer, and what of the checkpoint they leave out."""

    model: PreTrainedModel
    tokenizer: Any
    left_out: list[str]


def load_encoder(
    name: str, device: torch.device, dtype: torch.dtype, argument: str = ""
) -> tuple[PreTrainedModel, Any]:
    """Loads an encoder without a head, with exact attention, and its tokenizer.

    Args:
        name: a folder, or the id of a model on the hub.
        device: where to put it.
        dtype: of its weights.
        argument: names it in messages, as ``"--model"`` does.

    Returns:
        (model in evaluation mode, tokenizer).

    Raises:
        UserError: it can't be loaded, does not read text, lacks weights, or can't be made exact.
    """
    check_folder(name, argument)
    called = f"{argument} {name!r}".lstrip()
    with loading(called):
        tokenizer = AutoTokenizer.from_pretrained(name, **OWN_CODE_ONLY)
    model, told = load_weights(AutoModel, name, called, dtype=dtype)
    if model.main_input_name != "input_ids":
        raise UserError(f"{called} does not read text but {model.main_input_name}")
    # A pooler is not part of what is compared; anything else would be random.
    missing = [key for key in without_buffers(told["missing_keys"]) if "pooler" not in key]
    if missing:
        raise UserError(
            f"{called} has no weights for {len(missing)} tensors of its encoder, such as "
            f"{missing[0]}"
        )
    model.eval().to(device)
    # A model that was saved with MRA attention would come with it.
    try:
        make_exact(model)
    except UserError as error:
        raise UserError(f"can't use {called}: {error}") from None
    return model, tokenizer


def load_checkpoint(name: str, drop: Collection[str] = ()) -> Checkpoint:
    """Loads the class that a checkpoint names, in the data type that it is stored in.

    A bare encoder without weights for its pooler is loaded without one.

    Args:
        name: a folder, or the id of a model on the hub.
        drop: parts whose tensors may be left out where the class does not read them.

    Raises:
        UserError: it can't be loaded, its class can't take another attention, a tensor is
            missing, or one would be lost.
    """
    with loading(repr(name)):
        tokenizer = AutoTokenizer.from_pretrained(name, **OWN_CODE_ONLY)
        config = AutoConfig.from_pretrained(name, **OWN_CODE_ONLY)
    model_class = _model_class(config)
    # The weights say it, where a config may say otherwise.
    config.dtype = None
    options = {"config": config, "dtype": "auto"}
    model, told = load_weights(model_class, name, repr(name), **options)
    missing = without_buffers(told["missing_keys"])
    only_pooler = all(belongs_to(key, ["pooler"]) for key in missing)
    if missing and only_pooler and _may_lack_pooler(model_class):
        options["add_pooling_layer"] = False
        model, told = load_weights(model_class, name, repr(name), **options)
        missing = without_buffers(told["missing_keys"])
    if missing:
        raise UserError(
            f"{name!r} has no weights for {len(missing)} tensors of {model_class.__name__}: "
            f"{listed(missing)}"
        )
    left_out = without_buffers(told["unexpected_keys"])
    lost = [key for key in left_out if not belongs_to(key, [*_LEFT_OVER, *drop])]
    if lost:
        raise UserError(
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
        UserError: a tensor is missing or left over.
    """
    options = {"add_pooling_layer": False} if without_pooler else {}
    name = str(folder)
    model, told = load_weights(model_class, name, repr(name), dtype=dtype, **options)
    wrong = without_buffers([*told["missing_keys"], *told["unexpected_keys"]])
    if wrong:
        raise UserError(f"what was written does not load: {listed(wrong)}")
    model.eval()
    return model


def load_weights(
    model_class: Any, name: str, called: str, **options: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """What all models are loaded with.

    Args:
        model_class: one of transformers' Auto classes, or a model class.
        name: a folder, or the id of a model on the hub.
        called: names it in the message if it can't be loaded.
        **options: of ``from_pretrained``.

    Returns:
        (model, what transformers tells of it: ``missing_keys``, ``unexpected_keys`` and more).

    Raises:
        UserError: it can't be loaded.
    """
    with loading(called):
        model, told = model_class.from_pretrained(
            name, output_loading_info=True, **OWN_CODE_ONLY, **options
        )
    return model, told


def lacks_pooler(model: PreTrainedModel) -> bool:
    """Whether a model was built without the pooler that its class can have."""
    has_one = any(belongs_to(name, ["pooler"]) for name, _ in model.named_parameters())
    return _may_lack_pooler(type(model)) and not has_one


def _may_lack_pooler(model_class: Any) -> bool:
    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters


def _model_class(config: PreTrainedConfig) -> Any:
    names = config.architectures or []
    if len(names) != 1:
        raise UserError(
            f"config.json must name the model's class in architectures, got {names or None}"
        )
    (name,) = names
    model_class = class_of(config.model_type, name)
    if model_class is None:
        raise UserError(f"config.json names the class {name}, which is not known")
    try:
        check_class(model_class, config)
        with torch.device("meta"):  # before any weights are read
            check_modules(model_class(copy.deepcopy(config)))
    except ValueError as error:
        raise UserError(str(error)) from None
    if model_class.main_input_name != "input_ids":
        raise UserError(f"{name} does not read text but {model_class.main_input_name}")
    return model_class
