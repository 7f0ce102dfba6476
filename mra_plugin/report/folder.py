"""A report's folder: the page, its plots as files, and the tables as Markdown."""

import re
from collections.abc import Sequence
from pathlib import Path

from mra_plugin.errors import UserError
from mra_plugin.files import write_whole

from .charts import Chart, charts
from .drawing import draw, png, svg
from .markdown import results_markdown
from .page import CHAPTERS, Picture, page, picture
from .results import Results
from .style import styles

# Methods of a plot, and its panels: more would be no picture.
MOST_DRAWN = 50


def write_report(found: Sequence[Results], folder: Path) -> list[Path]:
    """Writes index.html, results.md, and each plot as SVG and PNG.

    Args:
        found: what to report on; where more than one has plots, the names of their files end with
            the device and the data type.
        folder: made if it isn't there; files of the same names are replaced.

    Returns:
        The files written, the page first.

    Raises:
        OSError: the folder can't be made or written to.
        UserError: there is more than can be drawn.
    """
    drawn = [(results, charts(results)) for results in found]
    for _, plots in drawn:
        for plot in plots:
            _check_size(plot)
    folder.mkdir(parents=True, exist_ok=True)
    look = styles(method for _, plots in drawn for plot in plots for method in plot.methods)
    several = sum(bool(plots) for _, plots in drawn) > 1
    written = [folder / "index.html", folder / "results.md"]
    shown: list[tuple[Results, dict[str, Picture]]] = []
    for results, plots in drawn:
        pictures = {}
        ending = f"-{_slug(results.title)}" if several else ""
        for plot in plots:
            wide = draw(plot, look, columns=2)
            narrow = svg(draw(plot, look, columns=1))
            as_svg = svg(wide)
            for kind, content in ("svg", as_svg), ("png", png(wide)):
                written.append(folder / f"{plot.name}{ending}.{kind}")
                write_whole(written[-1], content)
            pictures[plot.name] = picture(as_svg, narrow, plot.text)
        shown.append((results, pictures))
    write_whole(written[0], page(shown))
    write_whole(written[1], results_markdown(found, CHAPTERS))
    return written


def _check_size(plot: Chart) -> None:
    for what, count in ("methods", len(plot.methods)), ("panels", len(plot.panels)):
        if count > MOST_DRAWN:
            raise UserError(
                f"the plot {plot.name!r} would have {count} {what}, at most {MOST_DRAWN} can be "
                "drawn: give fewer results"
            )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
