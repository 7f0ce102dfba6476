"""Tuning from beginning to end: a model, a text, and the settings that suit both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from mra_plugin.adapters.transformers.modules import copy_with_same_weights
from mra_plugin.encoders.attentions import with_attention
from mra_plugin.encoders.exact import make_exact
from mra_plugin.encoders.positions import extend_positions
from mra_plugin.encoders.repetitions import Repetitions
from mra_plugin.errors import UserError
from mra_plugin.ops.presets import FOR_PRETRAINED

from .candidates import FAMILIES, budgets
from .documents import documents_of
from .measuring import ModelBench
from .result import METRICS, Metric, Tuned
from .search import Search


def tune(
    model: nn.Module,
    tokenizer: Any,
    texts: str | Sequence[str],
    target: float = 0.99,
    *,
    lengths: Sequence[int] = (1024, 4096),
    metric: Metric = "sentence",
    progress: Callable[[float, str], None] | None = None,
) -> Tuned:
    """Finds the fastest settings of MRA attention that are close enough, by measuring.

    Measured is the forward pass of the whole encoder, on the device and in the data type that the
    model has, one document at a time. The model is copied, with the same weights in memory, and
    stays as it is. It takes minutes.

    The texts are cut into documents. One half is searched with; the other is held out, and what is
    reported comes from there. Settings have to reach the target on both, at every length. Inputs
    too short to gain anything get exact attention, which is what ``exact_up_to`` is set to.

    Example:
        >>> found = mra_plugin.tune(model, tokenizer, texts, target=0.99, lengths=[1024, 4096])
        >>> if found.options is not None:
        ...     mra_plugin.patch(model, **found.options)

    Args:
        model: an encoder of transformers, with or without a head.
        tokenizer: its tokenizer.
        texts: that the model is to read, or others of their kind; one or several.
        target: least closeness to exact attention, above 0 and up to 1.
        lengths: tokens that inputs have, special tokens included. Learned positions are repeated
            where they don't reach.
        metric: ``"sentence"`` is the mean cosine of the documents' mean vectors, ``"token"`` that
            of all tokens' vectors, ``"ranking"`` the share of each document's three nearest others
            that stay the same.
        progress: is told which share of the work is done, and what comes next.

    Returns:
        The options, or None where nothing gains and is close enough, and what was measured.

    Raises:
        TypeError: ``model`` is no transformers model.
        UserError: the model can't take MRA attention, there is too little text, or an argument
            has a wrong value.
    """
    wanted = _checked(target, lengths, metric)
    own = getattr(model, "_orig_mod", model)
    if not isinstance(own, PreTrainedModel):
        raise TypeError(f"model must be a transformers model, got {type(model).__name__}")
    if own.main_input_name != "input_ids":
        raise UserError(f"{type(own).__name__} does not read text but {own.main_input_name}")
    exact = copy_with_same_weights(own).eval()
    try:
        make_exact(exact)
    except UserError as error:
        raise UserError(f"can't tune {type(own).__name__}: {error}") from None
    learned = extend_positions(exact, wanted[-1])
    # Refuses what can't take MRA attention, before there is any work.
    other, _ = with_attention(exact, "mra", {"preset": FOR_PRETRAINED})
    given = [texts] if isinstance(texts, str) else texts
    documents = documents_of(tokenizer, given, wanted, metric)
    bench = ModelBench(exact, other, documents, metric)
    told = progress or (lambda share, what: None)
    search = Search(bench, wanted, FAMILIES, budgets(wanted[-1]), target, told)
    best, frontier = search.run()
    return Tuned(
        options=None if best is None else best.options,
        frontier=frontier,
        target=target,
        metric=metric,
        documents=len(documents.held_out),
        repeated=Repetitions(wanted[-1], learned),
    )


def _checked(target: float, lengths: Sequence[int], metric: Metric) -> list[int]:
    """Refuses wrong arguments, and gives the lengths ascending."""
    if not isinstance(target, int | float) or not 0 < target <= 1:
        raise UserError(f"target must be a number above 0 and up to 1, got {target!r}")
    if metric not in METRICS:
        raise UserError(f"metric must be {' or '.join(METRICS)}, got {metric!r}")
    given = list(lengths) if isinstance(lengths, Iterable) else []
    if not given or not all(isinstance(one, int) and one > 0 for one in given):
        raise UserError(f"lengths must be a list of positive whole numbers, got {lengths!r}")
    return sorted(set(given))
