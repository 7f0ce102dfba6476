"""A model and its tokenizer, made for longer documents."""

from typing import Any, TypeVar

from transformers import PreTrainedModel

from mra_plugin.errors import UserError

from .positions import METHODS, Method, extend_positions, longest_input, position_tables

Model = TypeVar("Model", bound=PreTrainedModel)

# Rotary embeddings whose angles do not depend on config.max_position_embeddings.
_ROTARY_TYPES = ("default", "linear")


def stretch(model: Model, tokenizer: Any, max_length: int, positions: Method = "tile") -> Model:
    """Has an encoder and its tokenizer take documents of up to ``max_length`` tokens.

    A learned position table is extended; its rows that stand for no position (RoBERTa's up to the
    padding's, the first two of MRA and Nyströmformer) stay as they are. Of a model with rotary
    positions only the limits change, and so of MEGA models, whose table of distances has to be
    bounded by chunks. Attention stays as it is; `mra_plugin.patch` changes it.
    ``save_pretrained`` of both then writes a checkpoint that a plain ``from_pretrained`` loads.

    Example:
        >>> model = stretch(AutoModel.from_pretrained(path), tokenizer, 4096)
        >>> mra_plugin.patch(model, block_per_row=8)

    Args:
        model: an encoder of transformers or of this package, with or without a head. It is
            changed in place.
        tokenizer: its tokenizer, changed in place; None if there is none to change.
        max_length: tokens, special tokens included.
        positions: ``"tile"`` repeats the learned positions: short inputs give what they gave
            before. ``"interpolate"`` spreads them evenly over the new length, which moves all but
            the first, so that the model has to be trained further.

    Returns:
        ``model``.

    Raises:
        UserError: the model's positions are neither learned nor rotary, it reads more than
            ``max_length`` tokens already, or ``positions`` is unknown.
    """
    if positions not in METHODS:
        raise UserError(f"positions must be one of {', '.join(METHODS)}, got {positions!r}")
    limit = stretchable_length(model)
    if max_length < limit:
        raise UserError(
            f"max_length must be at least the {limit} tokens that the model reads already, "
            f"got {max_length}"
        )
    own: Any = model
    if hasattr(own, "read_longer"):
        own.read_longer(max_length)
    elif position_tables(model):
        extend_positions(model, max_length, positions)
    else:
        model.config.max_position_embeddings = max_length
    if tokenizer is not None:
        _set_limit(tokenizer, max_length)
    return model


def stretchable_length(model: PreTrainedModel) -> int:
    """Tokens that a model has positions for, if it can be given more.

    Raises:
        UserError: its positions are neither learned nor rotary, or of a kind that depends on its
            limit.
    """
    kind = getattr(model.config, "position_embedding_type", None) or "absolute"
    if kind not in ("absolute", "rotary"):
        raise UserError(
            f"{type(model).__name__} has relative positions (position_embedding_type={kind!r}); "
            "only learned absolute and rotary positions can be made longer"
        )
    own: Any = model
    if hasattr(own, "why_not_longer"):  # a family that knows by itself
        if reason := own.why_not_longer():
            raise UserError(f"{type(model).__name__} can't read longer documents: {reason}")
    elif not position_tables(model):
        _check_rotary(model)
    length = longest_input(model)
    if length is None:
        raise UserError(
            f"the config of {type(model).__name__} does not say how many tokens it reads "
            "(max_position_embeddings)"
        )
    return length


def kind_of_positions(model: PreTrainedModel) -> str:
    """``"learned"``, if a model has a position table, ``"rotary"``, or a family's own word."""
    if position_tables(model):
        return "learned"
    return str(getattr(model, "kind_of_positions", "rotary"))


def _check_rotary(model: PreTrainedModel) -> None:
    """Refuses a model without a position table whose positions are not rotary, or can't reach."""
    if not any(name.endswith("inv_freq") for name, _ in model.named_buffers()):
        raise UserError(
            f"{type(model).__name__} has neither a learned position table (position_embeddings) "
            "nor rotary positions; no other positions can be made longer"
        )
    for one in _rotary_types(getattr(model.config, "rope_parameters", None)):
        if one not in _ROTARY_TYPES:
            raise UserError(
                f"{type(model).__name__} has rotary positions of type {one!r}, which depend on its "
                f"limit; only {' and '.join(_ROTARY_TYPES)} can have another one"
            )


def _rotary_types(parameters: Any) -> set[str]:
    """Types of rotary positions in a config, where each kind of layer may have its own."""
    if not isinstance(parameters, dict):
        return set()
    own = {parameters["rope_type"]} if "rope_type" in parameters else set()
    return own.union(*(_rotary_types(one) for one in parameters.values()))


def _set_limit(tokenizer: Any, max_length: int) -> None:
    tokenizer.model_max_length = max_length
    # tokenizer.json may cut and fill up by itself, which programs other than transformers heed.
    tokenizer.init_kwargs.pop("max_length", None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
