"""Result files, read into `Results`."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from mra_plugin.errors import UserError

from .comparisons import is_comparison, read_comparison
from .distillations import is_distillation, read_distillation
from .entries import busy, closeness, not_run, picture, retrieval, source, stages, timing
from .fields import Fields, halves_of_characters, short
from .results import Results, Source, Timing

KINDS = ("attention", "layer", "busy", "closeness", "retrieval", "picture", "stages")


def read_results(paths: Sequence[Path]) -> list[Results]:
    """Reads result files of the benchmarks, `mra compare` and `mra train`, in any mixture.

    Args:
        paths: files in pytest-benchmark's JSON format, or written by `mra compare --json` or by
            `mra train --distill` (closeness.json).

    Returns:
        One `Results` for each device and data type, and each number of channels if attention has
        several, in order of appearance. What several files measured on the same device in the
        same data type comes together; of a thing measured more than once the last figures stay,
        and a note says so. `mra compare` names devices in its own way, so its figures stand apart.

    Raises:
        UserError: a file can't be read or holds something else; the message names the file and
            what is missing.
    """
    found: dict[tuple[object, ...], Results] = {}
    for path in paths:
        for results in _parsed(_loaded(path), path):
            key = (results.machine, results.threads, results.dtype)
            found[key] = _joined(found[key], results) if key in found else results
    parts = (part for results in found.values() for part in _by_channels(results))
    return [_without_repetitions(part) for part in parts]


def _loaded(path: Path) -> Fields:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"can't read {str(path)!r}: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if halves_of_characters(values):
        raise UserError(f"{path} has half of a character, such as \\ud83d")
    whole = Fields(values, f"{path}: the file")
    if is_comparison(whole) or is_distillation(whole):
        return whole
    for name in "machine_info", "benchmarks":
        if name not in whole.values:
            raise UserError(
                f"{path} is no result file of pytest-benchmark or `mra compare`: it has no "
                f"{name!r} at its top level"
            )
    return whole


def _parsed(whole: Fields, path: Path) -> list[Results]:
    if is_comparison(whole):
        return [read_comparison(whole, path)]
    if is_distillation(whole):
        return [read_distillation(whole, path)]
    groups: dict[tuple[str, str], Results] = {}
    left_out: Counter[str] = Counter()
    for entry in whole.objects("benchmarks"):
        extra = entry.inner("extra_info")
        extra.where = f"{path}: extra_info of benchmark {short(entry.values.get('name'))}"
        kind = extra.values.get("kind")
        if kind not in KINDS:
            left_out[f"of unknown kind {short(kind)}" if kind else "without a kind"] += 1
            continue
        group = (extra.text("device"), extra.text("dtype"))
        if group not in groups:
            groups[group] = _nothing_yet(whole, path, *group)
        groups[group] = _with(groups[group], kind, extra)
    missing = tuple(map(not_run, whole.objects("not_run")))
    if not groups and not missing:
        raise UserError(
            f"{path} holds nothing to report: no benchmark has an extra_info with a 'kind' "
            f"among {', '.join(KINDS)}"
        )
    found = list(groups.values()) or [_nothing_yet(whole, path, "cpu", "")]
    notes = tuple(
        f"{path.name}: {count} benchmark{'s' * (count != 1)} {what} left out"
        for what, count in left_out.items()
    )
    # What could not run names no device and no data type: it stands once.
    found[0] = replace(found[0], not_run=missing, notes=notes)
    return found


def _nothing_yet(whole: Fields, path: Path, device: str, dtype: str) -> Results:
    machine = whole.inner("machine_info")
    name = machine.text_if_any("device")
    brand = machine.inner("cpu").text_if_any("brand_raw")
    on_cpu = device.startswith("cpu")
    return Results(
        machine=(brand or name or "CPU") if on_cpu else (name or device),
        threads=machine.count_if_any("threads") if on_cpu else None,
        capability=machine.text_if_any("capability"),
        dtype=dtype,
        sources=(_source(whole, path),),
    )


def _with(results: Results, kind: str, extra: Fields) -> Results:
    if kind == "attention":
        return replace(results, attention=(*results.attention, timing(extra)))
    if kind == "layer":
        return replace(results, layer=(*results.layer, timing(extra)))
    if kind == "busy":
        return replace(results, busy=(*results.busy, busy(extra)))
    if kind == "retrieval":
        return replace(results, retrieval=(*results.retrieval, retrieval(extra)))
    if kind == "picture":
        return replace(results, pictures=(*results.pictures, picture(extra)))
    if kind == "stages":
        return replace(results, stages=(*results.stages, *stages(extra)))
    return replace(results, closeness=(*results.closeness, closeness(extra)))


def _source(whole: Fields, path: Path) -> Source:
    machine, commit = whole.inner("machine_info"), whole.inner("commit_info")
    versions = machine.inner("versions")
    if not versions.values:
        versions = Fields({"torch": machine.values.get("torch")}, versions.where)
    name = commit.text_if_any("id")
    changed = " with changes" if commit.values.get("dirty") else ""
    return source(
        path, whole.text_if_any("datetime"), versions, f"{name[:10]}{changed}" if name else None
    )


def _joined(first: Results, second: Results) -> Results:
    return replace(
        second,
        sources=first.sources + second.sources,
        attention=first.attention + second.attention,
        layer=first.layer + second.layer,
        busy=first.busy + second.busy,
        closeness=first.closeness + second.closeness,
        retrieval=first.retrieval + second.retrieval,
        pictures=first.pictures + second.pictures,
        encoders=first.encoders + second.encoders,
        distillations=first.distillations + second.distillations,
        not_run=tuple(dict.fromkeys(first.not_run + second.not_run)),
        stages=first.stages + second.stages,
        notes=first.notes + second.notes,
    )


def _by_channels(results: Results) -> list[Results]:
    channels = list(dict.fromkeys(timing.shape[-1] for timing in results.attention))
    if len(channels) < 2:
        return [results]
    alone = replace(
        results,
        layer=(),
        busy=(),
        closeness=(),
        retrieval=(),
        pictures=(),
        encoders=(),
        distillations=(),
        not_run=(),
        stages=(),
        notes=(),
    )
    # What has no channels to be told apart by stands with the first.
    return [
        replace(
            results if size == channels[0] else alone,
            channels=size,
            attention=tuple(one for one in results.attention if one.shape[-1] == size),
        )
        for size in channels
    ]


def _without_repetitions(results: Results) -> Results:
    timings = [_last_timings(results.attention), _last_timings(results.layer)]
    busy = tuple(
        {(b.processes, b.timing.method, b.timing.tokens): b for b in results.busy}.values()
    )
    closeness = tuple({(c.method, c.tokens, c.budget): c for c in results.closeness}.values())
    retrieval = tuple({(r.collection, r.method, r.tokens): r for r in results.retrieval}.values())
    pictures = tuple({(p.what, p.grid, p.method): p for p in results.pictures}.values())
    stages = tuple({(s.method, s.tokens, s.direction, s.stage): s for s in results.stages}.values())
    encoders = tuple(
        {
            (e.model, e.text, e.attention, repr(e.params), e.tokens): e for e in results.encoders
        }.values()
    )
    before = (
        *(results.attention, results.layer, results.busy, results.closeness),
        *(results.retrieval, results.pictures, results.stages, results.encoders),
    )
    after = (*timings, busy, closeness, retrieval, pictures, stages, encoders)
    repeated = sum(map(len, before)) - sum(map(len, after))
    note = (f"{repeated} of the measurements were repeated later: the last ones count",)
    return replace(
        results,
        attention=timings[0],
        layer=timings[1],
        busy=busy,
        closeness=closeness,
        retrieval=retrieval,
        pictures=pictures,
        stages=stages,
        encoders=encoders,
        notes=results.notes + note * (repeated > 0),
    )


def _last_timings(timings: Iterable[Timing]) -> tuple[Timing, ...]:
    return tuple({(t.method, t.tokens, t.direction): t for t in timings}.values())
