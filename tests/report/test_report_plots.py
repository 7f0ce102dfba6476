import itertools
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from helpers.colour_vision import contrast_to_white, distance
from helpers.synthetic_results import (
    ATTENTION,
    CLOSENESS,
    LAYER,
    RETRIEVAL,
    closeness,
    results,
    timing,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mra_plugin.report.charts import Chart, charts
from mra_plugin.report.closeness_sections import AROUND_ADDITIONS
from mra_plugin.report.drawing import draw, svg
from mra_plugin.report.results import Results
from mra_plugin.report.style import ADDITIONS, FURTHER, STYLES, ordered, styles

# Named after their blocks, and PyTorch's exact kernels by theirs.
ON_A_GPU = {
    "flash",
    "cudnn",
    "efficient",
    "xformers",
    "mra 32x8",
    "mra 64x4",
    "flex_attention 32x8",
    "flex_attention 64x4",
    "original",
}


def test_every_known_method_has_a_style_of_its_own() -> None:
    assert len(set(STYLES.values())) == len(STYLES)
    colours = {style.color for name, style in STYLES.items() if name not in ON_A_GPU}
    assert len(colours) == len(STYLES.keys() - ON_A_GPU)
    for style in (*STYLES.values(), *FURTHER):
        assert contrast_to_white(style.color) > 2, style


@pytest.mark.parametrize(
    "together",
    [
        {*ATTENTION, "xformers"},
        {*LAYER},
        {*RETRIEVAL},
        {*CLOSENESS, *AROUND_ADDITIONS},
        {*ADDITIONS, *AROUND_ADDITIONS},
        ON_A_GPU,
    ],
)
def test_methods_of_one_plot_look_different_to_all_eyes(together: set[str]) -> None:
    chosen = styles(together)
    for one, other in itertools.combinations(chosen, 2):
        assert distance(chosen[one].color, chosen[other].color) > 15, (one, other)
        assert chosen[one].marker != chosen[other].marker, (one, other)


def test_a_name_is_no_formula(read: Callable[..., list[Results]]) -> None:
    name = r"$\frac{$"
    odd = timing("attention", "mra", 512, "forward")
    odd["extra_info"]["method"] = name
    (plot, *_) = charts(read(results([odd]))[0])
    assert b"<svg" in svg(draw(plot, styles([name]), columns=1))


def test_unknown_methods_keep_their_style_and_share_none() -> None:
    alone = styles(["theirs"])["theirs"]
    assert styles(["mra", "theirs", "sdpa"])["theirs"] == alone
    many = styles(["mra", *(f"plugin {at}" for at in range(len(FURTHER)))])
    assert len(set(many.values())) == len(FURTHER) + 1


def test_order_is_fixed() -> None:
    names = ["zebra", "oracle", "mra", "ant", "sdpa", "mra"]
    assert ordered(names) == ["sdpa", "mra", "oracle", "ant", "zebra"]


def test_all_plots_of_full_results(cpu: Results) -> None:
    found = {chart.name: chart for chart in charts(cpu)}
    assert list(found) == [
        "ranking",
        "ranking-speed",
        "speed-up",
        "time",
        "memory",
        "layer-speed-up",
        "error-cost",
        "error-density",
        "error-cost-additions",
    ]
    assert [panel.title for panel in found["time"].panels] == ["forward", "training"]
    assert [panel.title for panel in found["error-cost"].panels] == ["512 tokens", "4096 tokens"]
    assert found["time"].methods == list(ATTENTION)
    assert "nystrom" in found["error-cost"].methods
    assert "nystrom" not in found["error-density"].methods
    assert found["error-cost"].methods == ordered({*CLOSENESS, *AROUND_ADDITIONS})
    assert found["error-cost-additions"].methods == ordered({*ADDITIONS, *AROUND_ADDITIONS})
    line = next(line for line in found["time"].panels[0].lines if line.method == "mra")
    assert line.x == (512, 1024, 2048, 4096, 8192, 16384)
    assert line.y[1] == pytest.approx(0.013)
    assert "forward, at the right end: sdpa 6.91 s, mra 274 ms" in found["time"].text


def test_plots_of_ranking(cpu: Results) -> None:
    found = {chart.name: chart for chart in charts(cpu)}
    for name in ("ranking", "ranking-speed"):
        panels = found[name].panels
        assert [panel.title for panel in panels] == ["language reference", "standard library"]
        assert found[name].methods == list(RETRIEVAL)
    by_length = {line.method: line for line in found["ranking"].panels[0].lines}
    assert by_length["mra"].x == (512, 2048)
    assert by_length["mra"].y == pytest.approx((0.8 * 0.96, 0.8 * 0.84))
    by_speed = {line.method: line for line in found["ranking-speed"].panels[0].lines}
    assert by_speed["mra"].x == (1.25, 2.0)
    assert by_speed["mra"].y == pytest.approx((0.96, 0.84))
    assert by_speed["exact"].y == (1, 1)
    (axes, _) = draw(found["ranking-speed"], styles(RETRIEVAL), columns=2).axes
    assert axes.get_xscale() == "log"
    assert axes.get_ylim() == pytest.approx((0, 1.05))


def test_plots_only_of_what_was_measured(read: Callable[..., list[Results]]) -> None:
    entries = [
        timing("attention", "mra", 512, "forward", peak_bytes=None),
        closeness("nystrom", 512, 4, relative_error=None),
    ]
    (found,) = read(results(entries))
    assert [chart.name for chart in charts(found)] == ["speed-up", "time"]


def drawn(chart: Chart, columns: int = 2) -> bytes:
    return svg(draw(chart, styles(chart.methods), columns))


def test_colours_and_axes_of_a_drawing(cpu: Results) -> None:
    chart = next(chart for chart in charts(cpu) if chart.name == "time")
    figure = draw(chart, styles(chart.methods), columns=2)
    forward, training = figure.axes
    assert forward.get_xscale() == forward.get_yscale() == "log"
    assert forward.get_title() == "forward"
    assert training.get_xlabel() == "tokens"
    assert training.get_ylabel() == "median time of a step, per sequence"
    assert [line.get_color() for line in forward.lines] == [
        style.color for style in styles(ATTENTION).values()
    ]
    FigureCanvasAgg(figure).draw()
    assert [tick.get_text() for tick in forward.get_xticklabels()] == [
        "512",
        "1024",
        "2048",
        "4096",
        "8192",
        "16384",
    ]
    assert {"1 ms", "100 ms", "10 s"} <= {tick.get_text() for tick in forward.get_yticklabels()}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(ATTENTION)
    box = legend.get_window_extent()
    for axes in figure.axes:
        assert not box.overlaps(axes.get_tightbbox())


def test_svg_is_the_same_each_time_and_fetches_nothing(cpu: Results) -> None:
    chart = next(chart for chart in charts(cpu) if chart.name == "error-density")
    once = drawn(chart)
    assert once == drawn(chart)
    for element in ElementTree.fromstring(once).iter():
        for name, value in element.attrib.items():
            if name.endswith("href"):
                assert value.startswith("#")


def test_narrow_drawing_stands_upright(cpu: Results) -> None:
    chart = charts(cpu)[0]
    narrow, wide = (draw(chart, styles(chart.methods), columns) for columns in (1, 2))
    assert narrow.get_figwidth() < 5 < narrow.get_figheight()
    assert wide.get_figwidth() > wide.get_figheight()


def test_one_point_and_errors_off_the_chart_can_be_drawn(
    read: Callable[..., list[Results]],
) -> None:
    entries = [
        timing("attention", "mra", 512, "forward"),
        closeness("nystrom", 512, 4, relative_error=40.0),
        closeness("mra", 512, 16),
    ]
    (found,) = read(results(entries))
    figures = {chart.name: draw(chart, styles(chart.methods), 2) for chart in charts(found)}
    assert list(figures) == ["speed-up", "time", "memory", "error-cost", "error-density"]
    (axes,) = figures["error-cost"].axes
    title, *note = axes.get_title().splitlines()
    assert title == "512 tokens"
    assert " ".join(note) == "points above the axis: nystrom 1 of 1, up to 40.0"
    assert axes.get_ylim()[1] < 2
    (axes,) = figures["error-density"].axes
    assert axes.get_title() == "512 tokens"


def test_note_on_many_errors_off_the_chart_fits(read: Callable[..., list[Results]]) -> None:
    entries = [
        closeness(method, 4096, budget, relative_error=1.25 + budget)
        for method in CLOSENESS
        for budget in (1, 2, 64)
    ]
    (found,) = read(results(entries))
    for chart in charts(found):
        assert_nothing_is_cut_off(chart, columns=1)


@pytest.mark.parametrize("columns", [1, 2])
def test_nothing_is_cut_off(cpu: Results, columns: int) -> None:
    for chart in charts(cpu):
        assert_nothing_is_cut_off(chart, columns)


def assert_nothing_is_cut_off(chart: Chart, columns: int) -> None:
    figure = draw(chart, styles(chart.methods), columns)
    FigureCanvasAgg(figure).draw()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.texts)]
    assert chart.title in [text.get_text() for text in texts]
    boxes = [text.get_window_extent() for text in texts]
    boxes += [axes.get_tightbbox() for axes in figure.axes]
    for box in boxes:
        assert box.x0 >= -1, chart.name
        assert box.y0 >= -1, chart.name
        assert box.x1 <= figure.bbox.width + 1, chart.name
        assert box.y1 <= figure.bbox.height + 1, chart.name
