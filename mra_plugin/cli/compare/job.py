"""The work of `mra compare`, from a checked job to a report."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

from mra_plugin.encoders.loading import first_line
from mra_plugin.encoders.measure import Comparison, compare_encoders
from mra_plugin.encoders.positions import extend_positions, fit_budget
from mra_plugin.encoders.text import Tokens, read_text, tokenize

from .. import encoder
from ..devices import describe
from ..errors import BadArgumentError
from ..versions import installed_versions
from .arguments import Job
from .report import Report

DEMO_MODEL = "all-MiniLM-L6-v2"
DEMO_TEXT = "Python's language reference"


def run(job: Job, started: Callable[[str], None], finished: Callable[[], None]) -> Report:
    """Loads, compares at each length, and writes the JSON file if one is asked for.

    Args:
        job: what to do.
        started: is told what is going on.
        finished: is called after each length.

    Returns:
        The report.

    Raises:
        BadArgumentError: text, model or attention don't fit.
    """
    text = read_text(job.text)
    name = encoder.demo_model() if job.model is None else job.model
    exact, tokenizer = encoder.load_encoder(name, job.device, job.dtype)
    tokens = tokenize(tokenizer, text, job.lengths[0])
    learned = extend_positions(exact, job.lengths[-1])
    twins = {
        attention: encoder.with_attention(exact, attention, job.block_per_row)
        for attention in job.attentions
    }
    others = {attention: twin for attention, (twin, _) in twins.items()}
    results: dict[str, list[Comparison]] = {attention: [] for attention in twins}
    for length in job.lengths:
        input_ids = torch.tensor([tokens.cut(length)], device=job.device)
        for twin in others.values():
            fit_budget(twin, learned, length)
        try:
            found = compare_encoders(exact, others, input_ids, started)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise BadArgumentError(
                f"the model can't read {length} tokens: {first_line(error)}"
            ) from None
        for attention, comparison in found.items():
            results[attention].append(comparison)
        finished()

    exact_name, own = encoder.exact_attention(exact)
    settings = _settings(job, exact_name)
    params = {attention: given for attention, (_, given) in twins.items()}
    report = Report(settings, params, results, _notes(job, settings, own, tokens, learned))
    if job.json is not None:
        try:
            job.json.write_text(report.json(), encoding="utf-8")
        except OSError as error:
            raise BadArgumentError(
                f"can't write --json {str(job.json)!r}: {error.strerror}"
            ) from None
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


def _notes(
    job: Job, settings: dict[str, Any], own: bool, tokens: Tokens, learned: int | None
) -> list[str]:
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
        *tokens.repetitions(job.lengths[-1], learned),
    ]
