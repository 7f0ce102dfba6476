"""A picture of one head: exact attention, MRA's, their difference, and the exact blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mra_plugin.encoders.capture import AttentionInputs, attention_inputs
from mra_plugin.errors import UserError
from mra_plugin.ops import MRAOptions
from mra_plugin.ops.presets import expand_preset

from .head_comparison import HeadComparison, compare_head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SIZE = (10, 8.6)  # inches
# Lines between more blocks than this would hide what they divide.
_MOST_BLOCKS_WITH_LINES = 32

# Unlike for any eye, as the report's colours are.
_BLUE, _VERMILION, _GREY = "#0072b2", "#d55e00", "#e8e8e8"


def plot_attention(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    layer: int = 0,
    head: int = 0,
    figure: Figure | None = None,
    preset: str | None = None,
    **options: Any,
) -> Figure:
    """Draws one head of an encoder: its exact attention matrix, MRA's, and what lies between.

    The four parts: both matrices on one logarithmic scale, their difference, and the block pairs
    that MRA computes exactly, with marks above the keys that every query sees exactly. The title
    says how far the head's output is from the exact one, and which share of the token pairs was
    computed exactly. In a notebook, after
    ``%matplotlib inline``, the figure shows as the value of its cell.

    The layer is handed what flows through exact attention; in a model that `mra_plugin.patch`
    changed, what flows through the attention that it has.

    Args:
        model: an encoder that `mra_plugin.patch` serves; it stays as it is.
        inputs: what the model is called with, one sequence of at most 4096 tokens, such as a
            tokenizer's output.
        layer: number of the layer, from 0.
        head: number of the head, from 0.
        figure: an empty figure to draw into, about 10 by 9 inches; None makes one.
        preset: one of `mra_plugin.ops.PRESETS`, which stands for all options that are not given;
            None stands for their defaults, the paper's.
        **options: of MRA, those of `mra_plugin.ops.MRAOptions`, such as ``block_per_row``.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: an option is unknown or has the wrong type, or ``model`` holds no transformers
            model.
        ValueError: there is no such layer or head, the layer is local by design, there is more
            than one sequence, it is too long, the model can't take another attention, there is
            no such preset, or an option has a wrong value.
    """
    choice = MRAOptions(**expand_preset({"preset": preset, **options}))
    layers = attention_inputs(model, **inputs)
    comparison = compare_head(pick_layer(layers, layer), head, choice)
    return draw_head(comparison, f"layer {layer}, head {head}", figure)


def pick_layer(layers: list[AttentionInputs], layer: int) -> AttentionInputs:
    """The layer of that number.

    Raises:
        UserError: there is none.
    """
    if not 0 <= layer < len(layers):
        raise UserError(f"layer must be from 0 to {len(layers) - 1}, got {layer}")
    return layers[layer]


def draw_head(comparison: HeadComparison, name: str, figure: Figure | None = None) -> Figure:
    """Draws a comparison.

    Args:
        comparison: what `compare_head` found.
        name: what the figure's title calls the head.
        figure: an empty figure to draw into; None makes one.

    Returns:
        The figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.colors import LogNorm, SymLogNorm
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('drawing needs matplotlib: pip install "mra-plugin[report]"') from None
    if figure is None:
        figure = Figure(figsize=SIZE)
    figure.set_layout_engine("compressed")
    (exact_axes, mra_axes), (difference_axes, block_axes) = figure.subplots(2, 2)
    figure.suptitle(
        f"{name}: relative error {comparison.relative_error:.3f}, "
        f"cosine {comparison.cosine:.4f}, density {comparison.density:.1%}"
    )
    exact, mra = comparison.exact, comparison.mra
    even = 1 / len(exact)  # what each weight would be if all were the same
    most = max(exact.max().item(), mra.max().item())
    scale = LogNorm(even / 100, most)
    for axes, title, matrix in ((exact_axes, "exact", exact), (mra_axes, "MRA", mra)):
        image = _draw_matrix(axes, title, matrix, norm=scale, cmap="magma")
        figure.colorbar(image, ax=axes, extend="min", label="weight (a row sums to 1)")

    difference = mra - exact
    largest = max(difference.abs().max().item(), even)
    signed = SymLogNorm(even, vmin=-largest, vmax=largest)
    image = _draw_matrix(difference_axes, "MRA minus exact", difference, norm=signed, cmap="RdBu_r")
    figure.colorbar(image, ax=difference_axes, label="difference of weights")
    _draw_blocks(block_axes, comparison)
    return figure


def _draw_matrix(axes: Axes, title: str, matrix: Tensor, **style: Any) -> AxesImage:
    axes.set(title=title, xlabel="key token", ylabel="query token")
    return axes.imshow(matrix.numpy(), interpolation_stage="data", **style)


def _draw_blocks(axes: Axes, comparison: HeadComparison) -> None:
    """The chosen block pairs, in the coordinates of the tokens."""
    from matplotlib.colors import ListedColormap

    tokens, blocks = len(comparison.exact), len(comparison.chosen)
    borders = [index * comparison.block_size - 0.5 for index in range(blocks + 1)]
    edges = (borders[0], borders[-1], borders[-1], borders[0])
    colours = ListedColormap([_GREY, _BLUE])
    axes.imshow(comparison.chosen.numpy(), extent=edges, cmap=colours, vmin=0, vmax=1)
    keys = f" and {len(comparison.salient)} keys" if len(comparison.salient) else ""
    axes.set(
        title=f"{comparison.chosen.sum()} of {blocks**2} blocks{keys} exact: "
        f"{comparison.kept:.0%} of the weight",
        xlabel="key token",
        ylabel="query token",
        xlim=(-0.5, tokens - 0.5),  # the last block may be short
        ylim=(tokens - 0.5, -0.5),
    )
    if blocks <= _MOST_BLOCKS_WITH_LINES:
        axes.set_xticks(borders[1:-1], minor=True)
        axes.set_yticks(borders[1:-1], minor=True)
        axes.grid(which="minor", color="white", linewidth=1)
        axes.tick_params(which="minor", length=0)
    if len(comparison.salient):
        _mark_keys(axes, comparison.salient)


def _mark_keys(axes: Axes, keys: Tensor) -> None:
    """Ticks above the columns of keys, outside of the blocks, and what they mean below."""
    above = axes.get_xaxis_transform()  # tokens along the axis, its height as 1
    axes.plot(
        keys.numpy(),
        [1.025] * len(keys),
        linestyle="none",
        marker="|",
        markersize=8,
        color=_VERMILION,
        transform=above,
        clip_on=False,
        label="a key that every query sees exactly",
    )
    axes.set_title(axes.get_title(), pad=16)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
