"""The picture shows the model's own matrices, and the figures beside them are right."""

import re

import numpy as np
import pytest
import torch
from helpers import tiny_models
from helpers.tiny_models import padded, token_ids
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import mra_plugin
from mra_plugin import plot_attention
from mra_plugin.ops import preset_options

OPTIONS = {"block_size": 8, "block_per_row": 2}
TOKENS = 70  # nine blocks, the last one short


@pytest.fixture
def model() -> nn.Module:
    return tiny_models.make("bert", attn_implementation="eager")


def inputs(real: int = TOKENS) -> dict[str, Tensor]:
    mask = padded(1, TOKENS, real)
    return {"input_ids": token_ids(1, TOKENS), "attention_mask": mask}


def matrix_of(model: nn.Module, layer: int, head: int, **given: Tensor) -> Tensor:
    """What the model itself says of its attention."""
    with torch.no_grad():
        return model(**given, output_attentions=True).attentions[layer][0, head]


def mra_matrix(model: nn.Module, head: int, given: dict[str, Tensor], **options: object) -> Tensor:
    """The first layer's matrix in the model with MRA; its inputs are the same as without."""
    mra_plugin.patch(model, **options)
    found = matrix_of(model, 0, head, **given)
    mra_plugin.unpatch(model)
    return found


def parts(figure: Figure) -> list[Axes]:
    """The four parts, without the colour bars."""
    return [axes for axes in figure.axes if axes.images]


def shown(axes: Axes) -> np.ndarray:
    (image,) = axes.images
    return np.asarray(image.get_array())


def figures(text: str) -> tuple[float, float, float]:
    """Relative error, cosine and density, as they are written."""
    found = re.search(r"relative error ([\d.]+), cosine ([\d.]+), density ([\d.]+)%$", text)
    assert found, text
    return float(found[1]), float(found[2]), float(found[3]) / 100


@pytest.mark.parametrize("real", [TOKENS, 45])
@pytest.mark.parametrize("approx_mode", ["full", "sparse"])
@pytest.mark.parametrize("selection", ["global", "per_row"])
def test_matrices_and_blocks(model: nn.Module, real: int, approx_mode: str, selection: str) -> None:
    options = {**OPTIONS, "approx_mode": approx_mode, "selection": selection}
    given = inputs(real)
    figure = plot_attention(model, given, layer=0, head=1, **options)
    exact_part, mra_part, difference_part, block_part = parts(figure)
    # The picture is of the real tokens.
    exact = matrix_of(model, 0, 1, **given)[:real, :real]
    mra = mra_matrix(model, 1, given, **options)[:real, :real]

    np.testing.assert_allclose(shown(exact_part), exact.numpy(), atol=1e-6)
    np.testing.assert_allclose(shown(mra_part), mra.numpy(), atol=1e-6)
    np.testing.assert_allclose(shown(difference_part), (mra - exact).numpy(), atol=1e-6)
    assert (mra - exact).abs().max() > 0.01

    # Without the coarse scale, weights are where the chosen blocks are.
    sparse = mra_matrix(model, 1, given, **{**options, "approx_mode": "sparse"})[:real, :real]
    blocks = -(-real // 8)
    room = torch.zeros(8 * blocks, 8 * blocks)
    room[:real, :real] = sparse
    chosen = room.unflatten(0, (blocks, 8)).unflatten(2, (blocks, 8)).amax((1, 3)) > 0
    np.testing.assert_array_equal(shown(block_part), chosen.numpy())
    held = exact.where(sparse > 0, torch.zeros(())).sum() / exact.sum()
    title = f"{chosen.sum()} of {blocks**2} blocks exact: {held:.0%} of the weight"
    assert block_part.get_title() == title


@pytest.mark.parametrize("real", [TOKENS, 45])
def test_figures_beside_the_picture(model: nn.Module, real: int) -> None:
    given = inputs(real)
    figure = plot_attention(model, given, layer=0, head=1, **OPTIONS)
    exact = matrix_of(model, 0, 1, **given)[:real]
    mra = mra_matrix(model, 1, given, **OPTIONS)[:real]
    sparse = mra_matrix(model, 1, given, **OPTIONS, approx_mode="sparse")[:real, :real]
    with torch.no_grad():
        hidden = model.embeddings(given["input_ids"])
        value = model.encoder.layer[0].attention.self.value(hidden)[0, :, 16:]
    out, target = mra @ value, exact @ value
    title = figure.get_suptitle()

    assert title.startswith("layer 0, head 1: ")
    error, cosine, density = figures(title)
    assert error == pytest.approx(((out - target).norm() / target.norm()).item(), abs=6e-4)
    assert cosine == pytest.approx(cosine_similarity(out, target).mean().item(), abs=6e-5)
    assert density == pytest.approx((sparse > 0).float().mean().item(), abs=6e-4)


def test_salient_keys_are_marked_and_counted(model: nn.Module) -> None:
    given, options = inputs(45), {**OPTIONS, "salient_keys": 4, "coarse_key_size": 2}
    figure = plot_attention(model, given, layer=0, head=1, **options)
    block_part = parts(figure)[3]
    (marks,) = block_part.lines
    keys = torch.as_tensor(marks.get_xdata())
    assert len(set(keys.tolist())) == 4
    assert keys.max() < 45
    (label,) = (text.get_text() for text in block_part.get_legend().get_texts())
    assert label == "a key that every query sees exactly"

    # Without the coarse scale, weights are where the chosen blocks and these keys are.
    sparse = mra_matrix(model, 1, given, **{**options, "approx_mode": "sparse"})[:45, :45]
    assert (sparse[:, keys] > 0).all()
    exact = matrix_of(model, 0, 1, **given)[:45, :45]
    held = exact.where(sparse > 0, torch.zeros(())).sum() / exact.sum()
    title = f"{shown(block_part).sum()} of 36 blocks and 4 keys exact: {held:.0%} of the weight"
    assert block_part.get_title() == title
    density = figures(figure.get_suptitle())[2]
    assert density == pytest.approx((sparse > 0).float().mean().item(), abs=6e-4)
    # No other picture has marks.
    assert not parts(plot_attention(model, given, **OPTIONS))[3].lines
    assert (
        len(parts(plot_attention(model, given, **OPTIONS, salient_keys=99))[3].lines[0].get_xdata())
        == 45
    )


def test_a_preset(model: nn.Module) -> None:
    options = {**OPTIONS, "coarse_key_size": 2, "exact_up_to": 0}
    whole = plot_attention(model, inputs(), **{**preset_options("close"), **options})
    figure = plot_attention(model, inputs(), preset="close", **options)
    assert figure.get_suptitle() == whole.get_suptitle()
    short = plot_attention(model, inputs(), preset="close", exact_up_to=TOKENS)
    assert figures(short.get_suptitle()) == (0, 1, 1)


def test_second_layer_is_handed_what_exact_attention_gives(model: nn.Module) -> None:
    figure = plot_attention(model, inputs(), layer=1, **OPTIONS)
    own = matrix_of(model, 1, 0, **inputs())
    np.testing.assert_allclose(shown(parts(figure)[0]), own.numpy(), atol=1e-6)


def test_full_budget_shows_no_difference(model: nn.Module) -> None:
    figure = plot_attention(model, inputs(), block_size=8, block_per_row=9)
    error, cosine, density = figures(figure.get_suptitle())
    assert (error, cosine, density) == (0, 1, 1)
    difference = parts(figure)[2].images[0]
    assert np.abs(shown(parts(figure)[2])).max() < 1e-6
    assert difference.norm.vmax == pytest.approx(1 / TOKENS)  # rounding does not fill the scale


def test_scales_and_labels(model: nn.Module) -> None:
    figure = plot_attention(model, inputs(), **OPTIONS)
    exact, mra, difference, blocks = parts(figure)
    limits = [(part.images[0].norm.vmin, part.images[0].norm.vmax) for part in (exact, mra)]
    assert limits[0] == limits[1], "the same colour must mean the same weight"
    assert limits[0][1] == pytest.approx(max(shown(exact).max(), shown(mra).max()))
    assert difference.images[0].norm.vmin == -difference.images[0].norm.vmax
    bars = [axes.get_ylabel() for axes in figure.axes if not axes.images]
    assert bars == ["weight (a row sums to 1)"] * 2 + ["difference of weights"]
    for part in (exact, mra, difference, blocks):
        assert (part.get_xlabel(), part.get_ylabel()) == ("key token", "query token")
        assert part.get_xlim() == (-0.5, TOKENS - 0.5)
        assert part.get_ylim() == (TOKENS - 0.5, -0.5)
    # Each block's border lies between two tokens.
    assert list(blocks.get_xticks(minor=True)) == [8 * index - 0.5 for index in range(1, 9)]
    assert tuple(blocks.images[0].get_extent()) == (-0.5, 71.5, 71.5, -0.5)


def test_draws_into_a_given_figure(model: nn.Module) -> None:
    figure = Figure(figsize=(12, 10))
    assert plot_attention(model, inputs(), figure=figure, **OPTIONS) is figure
    assert len(parts(figure)) == 4
    assert tuple(figure.get_size_inches()) == (12, 10)


def test_model_stays_unpatched(model: nn.Module) -> None:
    plot_attention(model, inputs(), **OPTIONS)
    assert model.config._attn_implementation == "eager"


def test_refusals(model: nn.Module) -> None:
    for layer in (2, -1):
        with pytest.raises(ValueError, match=rf"layer must be from 0 to 1, got {layer}$"):
            plot_attention(model, inputs(), layer=layer)
    for head in (2, -1):
        with pytest.raises(ValueError, match=rf"head must be from 0 to 1, got {head}$"):
            plot_attention(model, inputs(), head=head)
    with pytest.raises(ValueError, match=r"attends in 2 parts.*must hold one sequence"):
        plot_attention(model, {"input_ids": token_ids(2)})
    with pytest.raises(ValueError, match="block_size must be a power of two"):
        plot_attention(model, inputs(), block_size=7)
    with pytest.raises(ValueError, match=r"layers\.1\.attn sees 10 tokens to each side by design"):
        plot_attention(tiny_models.make("modernbert"), inputs(), layer=1)
    long = tiny_models.make("bert", max_position_embeddings=4100)
    with pytest.raises(ValueError, match=r"at most 4096 tokens.*got 4097"):
        plot_attention(long, {"input_ids": token_ids(1, 4097)})
