"""The folder of a sentence-transformers model: an encoder, and modules that go over as files.

Nothing here needs sentence-transformers: it is all JSON, and weights that stay as they are.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from mra_plugin.errors import UserError

from .pretrained import folder_with

# Classes of sentence-transformers by the names that folders have for them. ColBERT is PyLate's,
# and folders that were written before there was a choice have none.
_KINDS = {
    "SentenceTransformer": "SentenceTransformer",
    "CrossEncoder": "CrossEncoder",
    "SparseEncoder": "SparseEncoder",
    "MultiVectorEncoder": "MultiVectorEncoder",
    "ColBERT": "MultiVectorEncoder",
}
# The encoder's module by the task that it has where its own file names none.
_ENCODERS = {"Transformer": "feature-extraction", "MLMTransformer": "fill-mask"}
# Modules behind an encoder that serve any length and have all that they are in their folder.
_CARRIED = {
    *("CNN", "Dense", "Dropout", "HierarchicalTokenPooling", "LSTM", "LayerNorm"),
    *("MultiVectorMask", "Normalize", "Pooling", "SparseAutoEncoder", "SpladePooling"),
    *("WeightedLayerPooling", "WordWeights"),
}
# These may have no folder: there is nothing to say of them.
_WITHOUT_FOLDER = {"Normalize"}
# Modules of other libraries that sentence-transformers takes for its own.
_ALIASES = {"pylate.models.Dense.Dense": "sentence_transformers.models.Dense"}
_MODULES, _MODEL, _ADAPTER = (
    "modules.json",
    "config_sentence_transformers.json",
    "adapter_config.json",
)
# The encoder's own file; which of them it is depended on the family once.
_ENCODER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Tasks of the encoder that read its head.
_WITH_HEAD = ("sequence-classification", "fill-mask")


@dataclass(frozen=True)
class SentenceModel:
    """What a folder holds beside its encoder.

    Attributes:
        name: folder or hub id of the whole.
        kind: class of sentence-transformers that it is a model of.
        folder: where its files are.
        modules: what modules.json says of each, the encoder first.
    """

    name: str
    kind: str
    folder: Path
    modules: list[dict[str, Any]]

    @property
    def encoder(self) -> str:
        """Folder or hub id of the encoder."""
        path = self.modules[0]["path"]
        return str(self.folder / path) if path else self.name

    @property
    def module_names(self) -> list[str]:
        """Names of the modules' classes."""
        return [_class_name(module["type"]) for module in self.modules]

    @property
    def task(self) -> str:
        """What the encoder is for, as sentence-transformers calls it."""
        file = self.encoder_file
        said = _settings(file).get("transformer_task") if file else None
        return said or _ENCODERS[self.module_names[0]]

    @property
    def encoder_file(self) -> Path | None:
        """The file with the encoder's own settings, if it has one."""
        places = (self.folder / self.modules[0]["path"] / name for name in _ENCODER_FILES)
        return next((place for place in places if place.is_file()), None)


def read_sentence_model(name: str) -> SentenceModel | None:
    """What sentence-transformers would read beside an encoder.

    Args:
        name: folder or hub id.

    Returns:
        None if there is nothing (modules.json).

    Raises:
        UserError: something in it can't go over to another folder.
    """
    folder = folder_with(name, _MODULES)
    if folder is None:
        return None
    modules = _read(folder / _MODULES)
    if not isinstance(modules, list) or not all(
        isinstance(one, dict) and {"type", "path"} <= one.keys() for one in modules
    ):
        raise UserError(f"{name!r} has a {_MODULES} that is no list of modules")
    _check_modules(name, modules)
    modules = [{**one, "path": PurePosixPath(one["path"]).as_posix()} for one in modules]
    modules = [{**one, "path": "" if one["path"] == "." else one["path"]} for one in modules]
    files = [_MODEL, _ADAPTER, *_ENCODER_FILES]
    files += [f"{one['path']}/*" for one in modules if one["path"]]
    folder = folder_with(name, _MODULES, *files) or folder
    for one in modules[1:]:
        there = one["path"] and (folder / one["path"]).is_dir()
        if not there and _class_name(one["type"]) not in _WITHOUT_FOLDER:
            raise UserError(f"{name!r} has no folder {one['path']!r}, which {_MODULES} names")
    model = folder / _MODEL
    kind = _settings(model).get("model_type") if model.is_file() else None
    if kind not in (None, *_KINDS):
        raise UserError(
            f"{name!r} is a model of sentence-transformers of the type {kind!r}, which is not known"
        )
    if (folder / modules[0]["path"] / _ADAPTER).is_file():
        raise UserError(
            f"{name!r} holds an adapter ({_ADAPTER}); merge it into its model and save that first"
        )
    return SentenceModel(name, _KINDS[kind or "SentenceTransformer"], folder, modules)


def check_head(source: SentenceModel, model: PreTrainedModel) -> None:
    """Refuses an encoder that lost the head which sentence-transformers reads.

    Args:
        source: where it came from.
        model: what is to be written.

    Raises:
        UserError: says so.
    """
    if source.task in _WITH_HEAD and model.base_model is model:
        raise UserError(
            f"a {source.kind} reads the head of its encoder ({source.task}), which "
            f"{type(model).__name__} does not have"
        )


def write_sentence_model(source: SentenceModel, out: Path, max_length: int | None) -> None:
    """Writes all but the encoder and its tokenizer.

    Args:
        source: where it is.
        out: folder of the new encoder, which always stands at the top.
        max_length: tokens that the new model is to read; None leaves all limits. Limits of
            queries stay in any case.
    """
    top, *others = source.modules
    _write(out / _MODULES, [{**top, "path": ""}, *others])
    for path in {module["path"] for module in others} - {""}:
        if (source.folder / path).is_dir():
            # No code: none of these modules has any.
            ignored = shutil.ignore_patterns("*.py", "__pycache__")
            shutil.copytree(
                source.folder / path,
                out / path,
                ignore=ignored,
                copy_function=shutil.copyfile,
                dirs_exist_ok=True,
            )
    for file, change in (
        (source.encoder_file, _encoder_settings),
        (source.folder / _MODEL, _limits),
    ):
        if file and file.is_file():
            _write(out / file.name, change(_settings(file), max_length))


def kind_without_modules(config: PreTrainedConfig) -> str | None:
    """The kind of a model from when there was no modules.json for it, as its config shows it."""
    said = getattr(config, "sentence_transformers", None)
    older = getattr(config, "sbert_ce_default_activation_function", None)
    is_reranker = older is not None or (isinstance(said, dict) and "activation_fn" in said)
    return "CrossEncoder" if is_reranker else None


def _check_modules(name: str, modules: list[dict[str, Any]]) -> None:
    for number, module in enumerate(modules):
        kind, path = str(module["type"]), module["path"]
        if not isinstance(path, str) or _leads_out(path):
            raise UserError(f"{name!r} has a module {kind!r} outside of its folder, in {path!r}")
        own = _ALIASES.get(kind, kind).startswith("sentence_transformers.")
        is_encoder = own and _class_name(kind) in _ENCODERS
        if number == 0 and not is_encoder:
            raise UserError(
                f"{name!r} begins with the module {kind!r}; only a Transformer can be converted"
            )
        if number > 0 and is_encoder:
            raise UserError(f"{name!r} has a second Transformer, in {path!r}; only one can be")
        if number > 0 and not (own and _class_name(kind) in _CARRIED):
            raise UserError(
                f"{name!r} has the module {kind!r}, of which it is not known whether it serves "
                "another length, or where its code is"
            )
    if not modules:
        raise UserError(f"{name!r} has a {_MODULES} without a module")


def _leads_out(path: str) -> bool:
    parts = {*PurePosixPath(path).parts, *PureWindowsPath(path).parts}
    return bool(PureWindowsPath(path).anchor) or path.startswith("/") or ".." in parts


def _class_name(kind: str) -> str:
    return kind.split(".")[-1]


def _encoder_settings(settings: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
    """The encoder's own settings, without those that the new config.json has to make."""
    changed = _limits(settings, max_length)
    for name, not_ours in (
        ("model", ["attn_implementation"]),
        ("config", ["attn_implementation", "max_position_embeddings"]),
    ):
        for key in (f"{name}_kwargs", f"{name}_args"):
            if isinstance(changed.get(key), dict):
                inner = changed[key].items()
                changed[key] = {one: value for one, value in inner if one not in not_ours}
    return changed


def _limits(settings: Mapping[str, Any], max_length: int | None) -> dict[str, Any]:
    """Settings whose limits are moved, as far as there are any."""
    changed = dict(settings)
    if max_length is None:
        return changed
    for key in ("max_seq_length", "document_length"):
        if changed.get(key) is not None:
            changed[key] = max_length
    for key in ("processor_kwargs", "tokenizer_args"):
        if isinstance(changed.get(key), dict) and "model_max_length" in changed[key]:
            changed[key] = {**changed[key], "model_max_length": max_length}
    return changed


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"can't read {path.name}: {error}") from None


def _settings(path: Path) -> dict[str, Any]:
    found = _read(path)
    if not isinstance(found, dict):
        raise UserError(f"{path.name} holds no settings")
    return found


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
