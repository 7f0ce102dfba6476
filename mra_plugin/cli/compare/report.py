"""What `mra compare` found, as a table and as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from mra_plugin.encoders.measure import Comparison, Cost
from mra_plugin.encoders.repetitions import Repetitions
from mra_plugin.ops.presets import spell_options

from ..console import table_of_figures


@dataclass
class Report:
    """Everything that a comparison found.

    Attributes:
        settings: what was compared, where and with which versions.
        params: parameters of each attention, by its name.
        results: comparisons of each attention, by its name.
        notes: what a reader should know beside the figures.
        repeated: what of that is about repetitions, if any could be.
    """

    settings: dict[str, Any]
    params: dict[str, dict[str, Any]]
    results: dict[str, list[Comparison]]
    notes: list[str] = field(default_factory=list)
    repeated: Repetitions | None = None

    def table(self, attention: str) -> Table:
        """The figures of one attention."""
        params = spell_options(self.params[attention])
        name = f"{attention} ({params})" if params else attention
        table = table_of_figures(f"{name} beside exact attention")
        for header in (
            "tokens",
            "time\nexact",
            f"time\n{attention}",
            "speed-\nup",
            "memory\nexact",
            f"memory\n{attention}",
            "token\ncosine",
            "sentence\ncosine",
        ):
            table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
        for row in self.results[attention]:
            table.add_row(
                str(row.tokens),
                _time(row.exact),
                _time(row.approximate),
                f"{row.speed_up:.2f}x",
                _memory(row.exact),
                _memory(row.approximate),
                f"{row.token_cosine:.4f}",
                f"{row.sentence_cosine:.4f}",
            )
        return table

    def json(self) -> str:
        """All figures, with each single time."""
        results = [
            {
                "attention": attention,
                "tokens": row.tokens,
                "exact": _cost(row.exact),
                "approximate": _cost(row.approximate),
                "speed_up": row.speed_up,
                "token_cosine": row.token_cosine,
                "sentence_cosine": row.sentence_cosine,
            }
            for attention, rows in self.results.items()
            for row in rows
        ]
        whole = {
            **self.settings,
            "attention": self.params,
            "results": results,
            "notes": self.notes,
            "repeated": None if self.repeated is None else asdict(self.repeated),
        }
        return json.dumps(whole, indent=2) + "\n"


def _cost(cost: Cost) -> dict[str, Any]:
    return {"seconds": cost.seconds, "times": cost.times, "peak_bytes": cost.peak_bytes}


def _time(cost: Cost) -> str:
    value = f"{cost.seconds:.2f} s" if cost.seconds >= 1 else f"{cost.seconds * 1000:.0f} ms"
    return f"{value} ±{cost.spread:.0%}"


def _memory(cost: Cost) -> str:
    if cost.peak_bytes is None:
        return "n/a"
    megabytes = cost.peak_bytes / 1e6
    return f"{megabytes:.1f} MB" if megabytes < 100 else f"{megabytes:.0f} MB"
