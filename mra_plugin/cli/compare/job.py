"""The work of `mra compare`, from a checked job to a report."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

from mra_plugin.encoders.attentions import exact_attention, with_attention
from mra_plugin.encoders.closeness import reading
from mra_plugin.encoders.demo import DEMO_MODEL, DEMO_TEXT
from mra_plugin.encoders.measure import Comparison, compare_encoders
from mra_plugin.encoders.positions import extend_positions, fit_budget
from mra_plugin.encoders.repetitions import Repetitions
from mra_plugin.encoders.text import read_text, tokenize
from mra_plugin.environment import describe, installed_versions
from mra_plugin.errors import UserError
from mra_plugin.files import write_whole

from ..encoder import load_encoder
from .arguments import Job
from .report import Report


def run(job: Job, started: Callable[[str], None], finished: Callable[[], None]) -> Report:
    """Loads, compares at each length, and writes the JSON file if one is asked for.

    Args:
        job: what to do.
        started: is told what is going on.
        finished: is called after each length.

    Returns:
        The report.

    Raises:
        UserError: text, model or attention don't fit.
    """
    text = read_text(job.text)
    exact, tokenizer = load_encoder(job.model, job.device, job.dtype)
    tokens = tokenize(tokenizer, text, job.lengths[0])
    learned = extend_positions(exact, job.lengths[-1])
    twins = {
        attention: with_attention(exact, attention, job.options) for attention in job.attentions
    }
    others = {attention: twin for attention, (twin, _) in twins.items()}
    results: dict[str, list[Comparison]] = {attention: [] for attention in twins}
    for length in job.lengths:
        input_ids = torch.tensor([tokens.cut(length)], device=job.device)
        for twin in others.values():
            fit_budget(twin, learned, length)
        with reading(length):
            found = compare_encoders(exact, others, input_ids, started)
        for attention, comparison in found.items():
            results[attention].append(comparison)
        finished()

    exact_name, own = exact_attention(exact)
    settings = _settings(job, exact_name)
    params = {attention: given for attention, (_, given) in twins.items()}
    repeated = tokens.repetitions(job.lengths[-1], learned)
    notes = [
        *_notes(settings, own, repeated),
        *_exact_lengths(params, job.lengths),
    ]
    report = Report(settings, params, results, notes, repeated)
    if job.json is not None:
        try:
            write_whole(job.json, report.json())
        except OSError as error:
            raise UserError(f"can't write --json {str(job.json)!r}: {error.strerror}") from None
    return report


def _settings(job: Job, exact: str) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": installed_versions(),
        "model": job.model or DEMO_MODEL,
        "text": str(job.text or DEMO_TEXT),
        "device": describe(job.device),
        "dtype": str(job.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "exact": exact,
    }


def _notes(settings: dict[str, Any], own: bool, repeated: Repetitions) -> list[str]:
    exact = (
        f"the model with its own attention ({settings['exact']})"
        if own
        else f"the model with {settings['exact']} in place of its own attention, which approximates"
    )
    return [
        f"{settings['model']}, {settings['dtype']}, on {settings['device']}; "
        f"torch {settings['versions']['torch']}",
        f"exact: {exact}",
        "time: median of the rounds, ± half the distance from fastest to slowest",
        "memory: the most that PyTorch had allocated at a time in one pass, beyond the weights; "
        "equal figures mean that other layers than attention set it",
        *repeated.sentences(),
    ]


def _exact_lengths(params: dict[str, dict[str, Any]], lengths: list[int]) -> list[str]:
    """Says of which lengths an attention is exact, so that its cosines are 1."""
    return [
        f"{attention}: sequences of up to {limit} tokens get exact attention (exact_up_to)"
        for attention, given in params.items()
        if lengths[0] <= (limit := given.get("exact_up_to", 0))
    ]
