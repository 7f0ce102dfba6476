"""What users of sentence-transformers see of a model, before and after a conversion."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mra_plugin.encoders.pretrained import loading, quiet
from mra_plugin.errors import UserError

from .checks import greatest_difference

# Tokens of the texts. They have to stay far within any limit, with prompts and in pairs.
_SIZES = (8, 24, 64)


@dataclass(frozen=True)
class Look:
    """What sentence-transformers makes of a model.

    Attributes:
        given: embeddings or scores of short texts, by the name of the call.
        settings: what else users may rely on.
        texts: that were read.
        attention: of its encoder, as it was loaded.
        limit: tokens at which it cuts.
    """

    given: dict[str, Tensor]
    settings: dict[str, Any]
    texts: list[str]
    attention: str
    limit: int | None


def library_class(kind: str) -> Any:
    """A class of sentence-transformers; None if it is not installed, or too old to have it."""
    try:
        import sentence_transformers
    except ImportError:
        return None
    found = getattr(sentence_transformers, kind, None)
    return found if hasattr(found, "transformers_model") else None


def look(
    name: str,
    kind: str,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Callable[[PreTrainedModel], object],
    texts: Sequence[str] | Callable[[int], str],
) -> Look:
    """Reads short texts with a model.

    Args:
        name: its folder or hub id.
        kind: a class that `library_class` knows.
        device: where to run.
        dtype: to load it in.
        prepare: changes its encoder in place before anything is read.
        texts: what to read, or what gives a text of so many tokens.

    Raises:
        UserError: it can't be loaded.
    """
    local = Path(name).is_dir()
    with _silent(), loading(f"{name!r} with sentence-transformers"):
        model = library_class(kind)(
            name, device=str(device), local_files_only=local, model_kwargs={"dtype": dtype}
        )
    model.eval()
    limit = model.max_seq_length
    attention = model.transformers_model.config._attn_implementation
    prepare(model.transformers_model)
    if callable(texts):
        limits = (limit, getattr(model[0], "document_length", None))
        room = max(8, min(one for one in (*limits, 4 * max(_SIZES)) if one) // 4)
        texts = [texts(min(size, room)) for size in _SIZES]
    with _silent(), torch.inference_mode():
        given = _scores(model, texts) if kind == "CrossEncoder" else _embeddings(model, texts)
    return Look(given, _settings(model), list(texts), attention, limit)


def check_loaded(new: Look, attention: str, max_length: int | None) -> None:
    """Refuses a new model that sentence-transformers loads otherwise than it was meant.

    Args:
        new: the new model.
        attention: that it has when transformers loads it.
        max_length: tokens that it is to read; None for as many as before.

    Raises:
        UserError: says what differs.
    """
    if new.attention != attention:
        raise UserError(
            f"sentence-transformers loads the new model with the attention {new.attention!r} in "
            f"place of {attention!r}; nothing was written"
        )
    if max_length not in (None, new.limit):
        raise UserError(
            f"sentence-transformers has the new model read {new.limit} tokens in place of "
            f"{max_length}; nothing was written"
        )


def seen_difference(old: Look, new: Look) -> float:
    """The greatest difference between what two models give, relative to the greatest value.

    Raises:
        UserError: they differ in more than numbers.
    """
    for name, one in old.settings.items():
        if new.settings[name] != one:
            raise UserError(
                f"sentence-transformers reads other {name} from the new model than from the old "
                f"one, {new.settings[name]!r} in place of {one!r}; nothing was written"
            )
    if any(one.shape != new.given[name].shape for name, one in old.given.items()):
        return float("inf")
    return greatest_difference(old.given, new.given)


def _embeddings(model: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    options: dict[str, Any] = {
        "SentenceTransformer": {"convert_to_tensor": True},
        "SparseEncoder": {"convert_to_sparse_tensor": False},
        "MultiVectorEncoder": {},
    }[type(model).__name__]
    given = {}
    for name in ("encode", "encode_query", "encode_document"):
        found = getattr(model, name)(list(texts), show_progress_bar=False, **options)
        # A multi-vector model gives a tensor for each text, a row for each token.
        given[name] = found if isinstance(found, Tensor) else torch.cat(found)
    return given


def _scores(model: Any, texts: Sequence[str]) -> dict[str, Tensor]:
    pairs = [(one, other) for one in texts for other in texts]
    return {"predict": model.predict(pairs, convert_to_tensor=True, show_progress_bar=False)}


def _settings(model: Any) -> dict[str, Any]:
    found = {name: getattr(model, name, None) for name in ("prompts", "default_prompt_name")}
    found["similarity"] = getattr(model, "similarity_fn_name", None)
    found["activation"] = type(getattr(model, "activation_fn", None)).__name__
    found["modules"] = [type(module).__name__ for module in model]
    for name in ("query_length", "query_expansion"):
        found[name] = getattr(model[0], name, None)
    return found


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps what sentence-transformers logs off the terminal."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        logger.setLevel(level)
