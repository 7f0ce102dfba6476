"""A conversion from beginning to end: stretch, switch attention, write, load, check."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from mra_plugin.adapters.patching import patch, unpatch
from mra_plugin.adapters.transformers.config_attention import MRA, has_fields, written_out
from mra_plugin.encoders.exact import make_exact
from mra_plugin.encoders.loading import lacks_pooler, load_checkpoint, reload
from mra_plugin.encoders.pretrained import quiet
from mra_plugin.encoders.sentence_transformer import (
    check_head,
    kind_without_modules,
    read_sentence_model,
    write_sentence_model,
)
from mra_plugin.encoders.stretching import kind_of_positions, stretch, stretchable_length
from mra_plugin.encoders.tensors import belongs_to
from mra_plugin.errors import UserError, first_line
from mra_plugin.ops.presets import expand_preset, names_an_option

from .checks import closeness, give_full_budget, greatest_difference, outputs
from .mra_family import to_mra
from .request import ConversionRequest, Converted
from .sentence_check import check_loaded, library_class, look, seen_difference
from .writing import size_of, written_whole

# Of what is made an MRA-family model, which has the paper's scheme.
FAMILY_BLOCK_PER_ROW = 8
# More than rounding in single precision makes of two ways to sum up, in any model that works.
TOLERANCE = 1e-3
# Exact attention is quadratic, so neither the check nor the summary goes on for ever.
LONGEST_CHECK, SHORTEST_SUMMARY, LONGEST_SUMMARY = 2048, 512, 8192


def convert(
    name: str,
    out: Path,
    request: ConversionRequest,
    read: Callable[[Any, int], Callable[[int], list[int]]],
    started: Callable[[str], None],
    overwrite: bool = False,
) -> Converted:
    """Writes a converted checkpoint, checked after loading it from the disk.

    The new model with a full budget has to give what the old one gives. Interpolation moves the
    positions, so there the old one with moved positions is meant. One model is in memory at a
    time, in single precision.

    Args:
        name: folder or hub id of a checkpoint.
        out: folder to write; see `writing.check_target`.
        request: what it is to become.
        read: takes the tokenizer and the least number of tokens that will be asked for, and
            returns what cuts a text to so many tokens.
        started: is told what is going on.
        overwrite: whether a checkpoint that is in ``out`` at the end may go.

    Returns:
        What was written and found.

    Raises:
        UserError: the checkpoint can't become that, or a check failed. Nothing is written.
    """
    try:
        with written_whole(out, overwrite) as folder:
            written = _write(name, folder, request, read, started)
            return _check(written, folder, request, started)
    except UserError:
        raise
    except (LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise UserError(first_line(error)) from error


def check_source(name: str) -> None:
    """Refuses what `convert` can't make an MRA model of, for those who have long work before it.

    Args:
        name: folder or hub id of a checkpoint.

    Raises:
        UserError: says why.
    """
    whole = read_sentence_model(name)
    stretchable_length(load_checkpoint(whole.encoder if whole else name).model)


@dataclass(frozen=True)
class _Written:
    """What `_check` has to know of the model that `_write` left behind."""

    name: str
    sentence_transformer: str | None
    modules: list[str]
    model_class: type[PreTrainedModel]
    without_pooler: bool
    dtype: torch.dtype
    before: int
    after: int
    positions: str
    params: dict[str, Any]
    left_out: list[str]
    lengths: list[int]
    checked: int
    expected: dict[str, Tensor]
    tokenizer: Any
    cut: Callable[[int], list[int]]


def _write(
    name: str,
    folder: Path,
    request: ConversionRequest,
    read: Callable[[Any, int], Callable[[int], list[int]]],
    started: Callable[[str], None],
) -> _Written:
    started("loading")
    whole = read_sentence_model(name)
    source = load_checkpoint(whole.encoder if whole else name, request.drop)
    model: Any = source.model
    tokenizer, dtype = source.tokenizer, model.dtype
    limit = tokenizer.model_max_length
    precise = torch.promote_types(dtype, torch.float32)
    params = _params(model, request)
    positions = kind_of_positions(model)
    before = stretchable_length(model)
    after = before if request.max_length is None else request.max_length
    lengths = request.lengths or summary_lengths(after)
    if max(lengths) > after:
        raise UserError(f"lengths must be at most the new {after} tokens, got {max(lengths)}")
    checked = min(before, LONGEST_CHECK)
    cut = read(tokenizer, min(checked, *lengths))

    started(f"{checked} tokens: the model as it was")
    # To single precision and back loses nothing.
    make_exact(model.to(request.device, precise))
    expected = outputs(model, cut(checked))
    stretch(model, tokenizer, after, request.positions)
    if request.positions == "interpolate":
        expected = outputs(model.to(dtype).to(precise), cut(checked))

    started("writing")
    left_out = list(source.left_out)
    if request.mra_family:
        left_out += [key for key, _ in model.named_parameters() if belongs_to(key, request.drop)]
        model = to_mra(model, request.drop, **params)
    else:
        patch(unpatch(model), request.attention, **params)
    for part in request.drop:
        if not any(belongs_to(key, [part]) for key in left_out):
            raise UserError(f"drop names {part!r}, of which nothing has to be left out")
    with quiet():
        model.to(dtype).save_pretrained(folder)
    if whole:
        check_head(whole, model)
        write_sentence_model(whole, folder, request.max_length)
        if request.max_length is None:
            tokenizer.model_max_length = min(limit, after)
    tokenizer.save_pretrained(folder)
    kind = whole.kind if whole else kind_without_modules(model.config)
    return _Written(
        name, kind, whole.module_names if whole else [], type(model), lacks_pooler(model), dtype,
        before, after, positions, params, left_out, lengths, checked, expected, tokenizer, cut,
    )  # fmt: skip


def _check(
    written: _Written,
    folder: Path,
    request: ConversionRequest,
    started: Callable[[str], None],
) -> Converted:
    checked, params = written.checked, written.params
    started(f"{checked} tokens: the model as it is written, with a full budget")
    precise = torch.promote_types(written.dtype, torch.float32)
    model: Any = reload(written.model_class, folder, precise, written.without_pooler)
    model.to(request.device)
    attention = model.config._attn_implementation
    give_full_budget(model, request.attention, params, checked)
    difference = greatest_difference(written.expected, outputs(model, written.cut(checked)))
    if not difference <= TOLERANCE:
        raise UserError(
            f"with a full budget the new model differs from the old one by {difference:.1e} of "
            f"the greatest value within {checked} tokens, more than {TOLERANCE:.0e}; nothing was "
            "written"
        )
    found = closeness(model, request.attention, params, written.cut, written.lengths, started)
    del model
    seen = None
    if written.sentence_transformer and library_class(written.sentence_transformer):
        started("short texts, as sentence-transformers reads them")
        seen = _seen_difference(written, attention, folder, request)
    return Converted(
        architecture=written.model_class.__name__,
        before=written.before,
        after=written.after,
        positions=written.positions,
        params=params,
        dtype=written.dtype,
        weight_bytes=size_of(folder),
        left_out=written.left_out,
        sentence_transformer=written.sentence_transformer,
        modules=written.modules,
        checked=checked,
        difference=difference,
        seen_difference=seen,
        closeness=found,
    )


def _seen_difference(
    written: _Written, attention: str, folder: Path, request: ConversionRequest
) -> float:
    """The same check once more, of what users of sentence-transformers see."""
    precise = torch.promote_types(written.dtype, torch.float32)

    def as_it_was(model: Any) -> None:
        make_exact(model)
        if request.positions == "interpolate":
            stretch(model, None, written.after, request.positions)
            model.to(written.dtype).to(precise)

    def with_full_budget(model: PreTrainedModel) -> None:
        give_full_budget(model, request.attention, written.params, written.checked)

    def text(tokens: int) -> str:
        return str(written.tokenizer.decode(written.cut(tokens), skip_special_tokens=True))

    kind, device = str(written.sentence_transformer), request.device
    old = look(written.name, kind, device, precise, as_it_was, text)
    new = look(str(folder), kind, device, precise, with_full_budget, old.texts)
    check_loaded(new, attention, request.max_length)
    seen = seen_difference(old, new)
    if not seen <= TOLERANCE:
        raise UserError(
            f"with a full budget what sentence-transformers makes of short texts differs by "
            f"{seen:.1e} of the greatest value from what the old model gives, more than "
            f"{TOLERANCE:.0e}; nothing was written"
        )
    return seen


def summary_lengths(longest: int) -> list[int]:
    """512, 1024 and so on up to ``longest`` and no further than is quick."""
    lengths = []
    length = SHORTEST_SUMMARY
    while length < longest and length <= LONGEST_SUMMARY:
        lengths.append(length)
        length *= 2
    return [*lengths, longest] if longest <= LONGEST_SUMMARY else lengths


def _params(model: PreTrainedModel, request: ConversionRequest) -> dict[str, Any]:
    """The parameters of the new attention, written out.

    Those that are given go before those that the checkpoint has, and a preset before all of these.
    """
    given = request.params
    if request.attention != MRA:
        return dict(given)
    if given.get("preset") is not None:
        return expand_preset(given)
    own = getattr(model.config, MRA, None)
    if own is None and request.mra_family:
        own = {"block_per_row": FAMILY_BLOCK_PER_ROW}
    given = {**(own or {}), **given}
    if own is not None and not names_an_option(given) and not has_fields(model.config):
        given = {"preset": "paper", **given}  # which an empty config.mra stands for
    return written_out(model.config, given)
