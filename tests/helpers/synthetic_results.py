"""Result files as the benchmarks write them, with figures that follow simple laws."""

import json
import math
from pathlib import Path
from typing import Any

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
DENSE_LENGTHS = (512, 4096)

# Seconds at 1024 tokens, and the power of the length that they grow with.
ATTENTION = {
    "sdpa": (0.027, 2.0),
    "mra": (0.013, 1.1),
    "mra per_row": (0.012, 1.05),
    "mra sparse": (0.011, 1.1),
    "mra sparse per_row": (0.010, 1.05),
    "nystrom": (0.009, 1.0),
    "flex_attention": (0.030, 1.2),
    "mean of a plugin": (0.002, 1.0),
}
LAYER = {
    "roberta exact": (0.060, 1.6),
    "mra": (0.055, 1.05),
    "nystrom": (0.050, 1.0),
    "longformer": (0.110, 1.1),
    "bigbird": (0.150, 1.1),
    "nystromformer": (0.100, 1.05),
}
# Relative error with one block per row.
CLOSENESS = {"mra": 0.6, "mra sparse": 0.85, "nystrom": 0.9, "window": 0.95, "oracle": 0.5}
# The preset's additions to MRA, each by itself and all together.
ADDED = {
    "mra per_row": 0.59,
    "mra finer cells": 0.4,
    "mra salient keys": 0.45,
    "mra by mass": 0.55,
    "mra smaller blocks": 0.5,
    "mra close": 0.25,
    "oracle close": 0.2,
}
# Share of exact attention's MRR that is lost, and times as fast, at 1024 tokens.
RETRIEVAL = {
    "exact": (0.0, 1.0),
    "mra": (0.08, 1.5),
    "mra close": (0.02, 1.3),
    "nystrom 64": (0.2, 2.0),
    "nystrom 256": (0.1, 0.8),
}
# Relative error, and times as fast.
PICTURES = {"exact": (0.0, 1.0), "mra close": (0.2, 4.0), "mra close in tiles": (0.1, 3.5)}
COLLECTIONS = {"standard library": (40, 40), "language reference": (30, 12)}


def timing(
    kind: str,
    method: str,
    tokens: int,
    direction: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    faster: float = 1.0,
    **changes: Any,
) -> dict[str, Any]:
    laws = ATTENTION if kind == "attention" else LAYER
    reference = next(iter(laws))

    def seconds(name: str) -> float:
        at_1024, power = laws[name]
        slower = 3 if direction == "training" else 1
        return slower * at_1024 * (tokens / 1024) ** power / faster

    def peak(name: str) -> int:
        return round(8e6 * (tokens / 1024) ** (1.0 if name == reference else 1.05))

    own, exact = seconds(method), seconds(reference)
    spread = 0.0 if method == reference else 0.15
    info = {
        "kind": kind,
        "method": method,
        "params": {"block_per_row": 8} if method.startswith("mra") else {},
        "tokens": tokens,
        "dtype": dtype,
        "device": device,
        "direction": direction,
        "shape": [1, 12, tokens, 64] if kind == "attention" else [1, tokens, 768],
        "reference": reference,
        "seconds": own,
        "reference_seconds": exact,
        "speed_up": exact / own,
        "speed_up_from": exact / own * (1 - spread),
        "speed_up_to": exact / own * (1 + spread),
        "peak_bytes": peak(method),
        "reference_peak_bytes": peak(reference),
    }
    if kind == "attention":
        info |= {"relative_error": 0.0 if method == reference else 0.4, "cosine": 0.92}
    return benchmark(f"{kind}[{method}-{tokens}-{direction}]", info | changes)


def closeness(method: str, tokens: int, budget: int, **changes: Any) -> dict[str, Any]:
    size = 16 if method.endswith(("close", "smaller blocks")) else 32
    covered = min(budget * 32 / tokens, 1.0)
    landmarks = method == "nystrom"
    distance = (CLOSENESS | ADDED)[method] * (1 - covered) * (1 / budget) ** 0.3
    unit = "blocks per row" if size == 32 else f"blocks of {size} per row"
    info = {
        "kind": "closeness",
        "method": method,
        "model": "all-MiniLM-L6-v2",
        "text": "Python's language reference",
        "params": {},
        "tokens": tokens,
        "dtype": "float32",
        "device": "cpu",
        "budget": budget * 16 if landmarks else budget * 32 // size,
        "budget_unit": "landmarks" if landmarks else unit,
        "density": None if landmarks else covered,
        "relative_cost": 0.002 + covered * (0.5 if landmarks else 1.0),
        "relative_error": distance,
        "cosine": 1 - distance / 3,
        "layers": 6,
    }
    return benchmark(f"closeness[{method}-{tokens}-{budget}]", info | changes)


def retrieval(collection: str, method: str, tokens: int, **changes: Any) -> dict[str, Any]:
    lost, faster = RETRIEVAL[method]
    documents, full = COLLECTIONS[collection]
    mrr = 0.8 * (1 - lost * tokens / 1024)
    times = 1 + (faster - 1) * tokens / 1024 if faster > 1 else faster
    info = {
        "kind": "retrieval",
        "method": method,
        "params": {},
        "tokens": tokens,
        "dtype": "float32",
        "device": "cpu",
        "direction": "forward",
        "shape": [4096 // tokens, tokens],
        "reference": "exact",
        "model": "all-MiniLM-L6-v2",
        "collection": collection,
        "half": "held out",
        "documents": documents,
        "full_documents": full,
        "seconds": 2.0 / times,
        "reference_seconds": 2.0,
        "speed_up": times,
        "speed_up_from": 0.9 * times,
        "speed_up_to": 1.1 * times,
        "peak_bytes": 69_000_000,
        "reference_peak_bytes": 69_000_000,
        "mrr": mrr,
        "reference_mrr": 0.8,
        "first_hits": round(mrr * documents),
        "overlap": 1 - lost,
        "vector_cosine": 1 - lost / 2,
    }
    return benchmark(f"retrieval[{method}-{tokens}-{collection}]", info | changes)


def picture(what: str, grid: tuple[int, ...], method: str, **changes: Any) -> dict[str, Any]:
    error, faster = PICTURES[method]
    info = {
        "kind": "picture",
        "what": what,
        "grid": list(grid),
        "method": method,
        "params": {},
        "tokens": math.prod(grid),
        "dtype": "float32",
        "device": "cpu",
        "direction": "forward",
        "reference": "exact",
        "seconds": 0.6 / faster,
        "reference_seconds": 0.6,
        "speed_up": faster,
        "speed_up_from": 0.9 * faster,
        "speed_up_to": 1.1 * faster,
        "peak_bytes": None,
        "reference_peak_bytes": None,
        "relative_error": error,
        "cosine": 1 - error / 4,
    }
    sides = "x".join(map(str, grid))
    return benchmark(f"pictures[{what}-{sides}-{method}]", info | changes)


def benchmark(name: str, extra_info: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "group": None, "extra_info": extra_info, "stats": {"rounds": 5}}


def benchmarks() -> list[dict[str, Any]]:
    """Every kind, method, length and direction."""
    attention = [
        timing("attention", method, tokens, direction)
        for method in ATTENTION
        for tokens in LENGTHS
        for direction in ("forward", "training")
    ]
    layer = [
        timing("layer", method, tokens, direction)
        for method in LAYER
        for tokens in (512, 2048, 4096)
        for direction in ("forward", "training")
    ]
    close = [
        closeness(method, tokens, budget)
        for method in (*CLOSENESS, *ADDED)
        for tokens in DENSE_LENGTHS
        for budget in (1, 2, 4, 8, 16, 32, 64)
    ]
    search = [
        retrieval(collection, method, tokens)
        for collection in COLLECTIONS
        for method in RETRIEVAL
        for tokens in (512, 2048)
    ]
    pictures = [
        picture(what, grid, method)
        for what, grid in (("attention", (64, 64)), ("attention", (8, 8, 8)), ("block", (64, 64)))
        for method in PICTURES
    ]
    return attention + layer + close + search + pictures


def results(entries: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """The whole file's content."""
    content = {
        "machine_info": {
            "cpu": {"brand_raw": "Imaginary CPU <7>"},
            "threads": 2,
            "torch": "2.13.0",
            "capability": "AVX512",
            "device": "cpu",
            "versions": {"python": "3.11.7", "torch": "2.13.0", "xformers": None},
        },
        "commit_info": {"id": "226c3a75e5678b0f82e6561b245265e03bc5e519", "dirty": False},
        "benchmarks": benchmarks() if entries is None else entries,
        "datetime": "2026-02-03T09:59:44+00:00",
        "version": "5.1.0",
        "not_run": [
            not_run("attention", "xformers", "forward", 512, "no kernel for <cpu> | float32"),
            not_run("attention", "xformers", "forward", 1024, "no kernel for <cpu> | float32"),
            not_run("attention", "sdpa", "training", 65536, "would take 40 GB"),
        ],
    }
    return content | changes


def stages_of(
    method: str, tokens: int, stages: list[dict[str, Any]], **changes: Any
) -> dict[str, Any]:
    """A benchmark of the stages of a call."""
    extra = {
        "kind": "stages",
        "method": method,
        "tokens": tokens,
        "direction": "forward",
        "device": "cpu",
        "dtype": "float32",
        "stages": stages,
        **changes,
    }
    return benchmark(f"stages[{tokens}]", extra)


def gpu_results() -> dict[str, Any]:
    """Attention alone on a GPU, with the times of its stages and a kind not known here."""
    entries = [
        timing(
            "attention", name, tokens, "forward", device="cuda:0", dtype="bfloat16", faster=100.0
        )
        for name in ("sdpa", "mra", "mra per_row")
        for tokens in (4096, 16384, 65536)
    ]
    machine = {
        "cpu": {"brand_raw": "Imaginary CPU <7>"},
        "threads": 16,
        "torch": "2.13.0",
        "capability": "sm_90",
        "device": "Imaginary GPU",
        "versions": {"python": "3.11.7", "torch": "2.13.0+cu130"},
    }
    stages = [
        {
            "stage": stage,
            "seconds": seconds,
            "share": share,
            "floor_bytes_seconds": 0.4 * seconds,
            "floor_operations_seconds": 0.2 * seconds,
        }
        for stage, seconds, share in (("pool", 2e-5, 0.1), ("chosen blocks", 1.8e-4, 0.9))
    ]
    unknown = benchmark("tiles[64]", {"kind": "tiles", "tiles": 64})
    entries += [stages_of("mra", 16384, stages, device="cuda:0", dtype="bfloat16"), unknown]
    return results(entries, machine_info=machine, not_run=[])


def comparison(**changes: Any) -> dict[str, Any]:
    """What `mra compare --attention mra --attention nystrom --json` writes."""

    def row(attention: str, tokens: int, seconds: float, cosine: float) -> dict[str, Any]:
        exact = 0.1 * (tokens / 512) ** 2
        return {
            "attention": attention,
            "tokens": tokens,
            "exact": {"seconds": exact, "times": [exact] * 3, "peak_bytes": 8_000_000},
            "approximate": {"seconds": seconds, "times": [seconds] * 3, "peak_bytes": None},
            "speed_up": exact / seconds,
            "token_cosine": cosine,
            "sentence_cosine": cosine - 0.01,
        }

    content = {
        "date": "2026-02-04T10:00:00+00:00",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "xformers": None},
        "model": "all-MiniLM-L6-v2",
        "text": "Python's language reference",
        "device": "cpu (x86_64, 2 threads)",
        "dtype": "float32",
        "threads": 2,
        "exact": "sdpa",
        "attention": {"mra": {"block_per_row": 8}, "nystrom": {}},
        "results": [
            row("mra", 512, 0.125, 0.9585),
            row("mra", 4096, 1.6, 0.9256),
            row("nystrom", 512, 0.05, 0.7),
        ],
        "notes": [
            "exact: the model with its own attention (sdpa)",
            "time: median of the rounds, ± half the distance from fastest to slowest",
            "the model's 512 position embeddings are repeated up to 4096",
        ],
        "repeated": {"length": 4096, "positions": 512, "text": None},
    }
    return content | changes


def not_run(
    kind: str, method: str, direction: str | None, tokens: int | None, reason: str
) -> dict[str, Any]:
    return {
        "kind": kind,
        "method": method,
        "direction": direction,
        "tokens": tokens,
        "reason": reason,
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
