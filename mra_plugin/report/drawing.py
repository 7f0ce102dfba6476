"""Draws charts with matplotlib."""

import io
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from . import numbers
from .charts import Axis, Chart, Panel
from .style import Style

# Letters as outlines: the picture looks the same everywhere. Without the salt, names inside the
# file would differ from run to run.
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "mra-plugin",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
}
PANEL = (4.6, 3.5)  # inches
LEGEND_ROW = 0.24  # inches
MOST_ERROR = 1.3  # an output of zeros has error 1: of what is above, the panel's title tells


def draw(chart: Chart, styles: Mapping[str, Style], columns: int) -> Figure:
    """A figure of all panels in so many columns, with one legend below."""
    with matplotlib.rc_context(SETTINGS):
        columns = min(columns, len(chart.panels))
        rows = -(-len(chart.panels) // columns)
        legend_rows = -(-len(chart.methods) // (2 * columns))
        size = (PANEL[0] * columns, PANEL[1] * rows + LEGEND_ROW * legend_rows + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(chart.title, fontsize=12, fontweight="bold")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, panel in zip(grid.flat, chart.panels, strict=False):
            _draw_panel(axes, panel, chart, styles)
        for axes in list(grid.flat)[len(chart.panels) :]:
            axes.set_axis_off()
        handles = [Line2D([], [], label=name, **_look(styles[name])) for name in chart.methods]
        legend_columns = -(-len(handles) // legend_rows)
        figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns)
        return figure


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file, the same bytes for the same figure."""
    return _saved(figure, "svg", {"Date": None})


def png(figure: Figure) -> bytes:
    """The figure as a PNG file of 160 dots per inch."""
    return _saved(figure, "png", {})


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    file = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(file, format=kind, dpi=160, metadata=metadata)
    return file.getvalue()


def _draw_panel(axes: Axes, panel: Panel, chart: Chart, styles: Mapping[str, Style]) -> None:
    axes.set_title(_title(panel, chart.y))
    axes.set_xlabel(chart.x.label)
    axes.set_ylabel(chart.y.label)
    axes.tick_params(labelbottom=True, labelleft=True)
    for line in panel.lines:
        style = styles[line.method]
        axes.plot(line.x, line.y, **_look(style))
        if line.ranges:
            low, high = zip(*line.ranges, strict=True)
            axes.vlines(line.x, low, high, color=style.color, alpha=0.45, linewidth=1.2)
    lines = [line for one in chart.panels for line in one.lines]
    _scale(axes, "x", chart.x, [x for line in lines for x in line.x])
    _scale(axes, "y", chart.y, [y for line in lines for y in line.y])


def _title(panel: Panel, y: Axis) -> str:
    """The panel's title, and below it what lies above the axis."""
    if y.unit != "error":
        return panel.title
    above = [
        f"{line.method} {sum(y > MOST_ERROR for y in line.y)} of {len(line.y)}, "
        f"up to {numbers.ratio(max(line.y))}"
        for line in panel.lines
        if max(line.y) > MOST_ERROR
    ]
    note = textwrap.wrap(f"points above the axis: {'; '.join(above)}", 44) if above else []
    return "\n".join([panel.title, *note])


def _look(style: Style) -> dict[str, Any]:
    return {
        "color": style.color,
        "marker": style.marker,
        "linestyle": style.linestyle,
        "linewidth": 1.8,
        "markersize": 6.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }


def _scale(axes: Axes, which: str, axis: Axis, values: list[float]) -> None:
    least, most = min(values), max(values)
    ticks: MatplotlibAxis = getattr(axes, f"{which}axis")
    if axis.unit == "error":
        top = min(1.05 * most, MOST_ERROR) or 1
        axes.set_ylim(-0.02 * top, top)
        return
    if axis.unit == "score":
        axes.set_ylim(0, 1.05 * most)
        return
    base = 2 if axis.unit in ("tokens", "times") else 10
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", base=base)
    if axis.unit == "tokens":
        ticks.set_major_locator(FixedLocator(sorted(set(values))))
        axes.tick_params(axis="x", labelrotation=35 if len(set(values)) > 6 else 0)
    else:
        wide = most / least > 300
        subs = (1.0,) if base == 2 or wide else (1.0, 2.0, 5.0)
        ticks.set_major_locator(LogLocator(base, subs=subs, numticks=20))
    ticks.set_minor_locator(NullLocator())
    ticks.set_minor_formatter(NullFormatter())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: _tick(axis, value)))


def _tick(axis: Axis, value: float) -> str:
    if axis.unit == "tokens":
        return str(round(value))
    if axis.unit == "share":
        return f"{100 * value:g}%"
    if axis.unit == "times":
        return f"{value:g}x"
    return numbers.tick(value, numbers.SECONDS if axis.unit == "seconds" else numbers.BYTES)
