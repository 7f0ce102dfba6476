"""Vision encoders whose patches are ordered in tiles."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recording import NAME as RECORDER
from helpers.recording import Recorder
from helpers.tiny_models import make
from helpers.tiny_vision import PATCH, VISION, make_vision, picture_of
from torch import Tensor
from transformers import AutoModel

import mra_plugin
from mra_plugin.adapters.transformers import pictures
from mra_plugin.ops.token_order import grid_coordinates, tile_order

FEW = {"block_size": 8, "block_per_row": 1}
ALL = {"block_size": 8, "block_per_row": 1000}


def recorded(model: Any, picture: Tensor) -> Tensor:
    """The first layer's queries [N, channels of all heads], in the order of its blocks."""
    Recorder.seen.clear()
    model(picture)
    return Recorder.first_row()


def test_each_kind_is_tested() -> None:
    assert set(pictures._IN_FRONT) == set(VISION)


@pytest.mark.parametrize("name", VISION)
@torch.no_grad()
def test_blocks_are_tiles_of_the_picture(name: str) -> None:
    model = make_vision(name)
    picture = picture_of(name)
    own = model(picture).last_hidden_state
    mra_plugin.patch(model, attention=RECORDER, token_order="tiles")
    plain = recorded(model, picture)
    frames = 2 if name == "vjepa2" else 1
    order = tile_order(grid_coordinates((frames, 8, 8))).tolist()
    front = len(plain) - len(order)
    for line, column in ((0, 0), (3, 4), (7, 1)):
        touched = picture.clone()
        first = touched[:, 0] if name == "vjepa2" else touched
        first[..., line * PATCH, column * PATCH] += 1
        changed = (recorded(model, touched) != plain).any(1).nonzero()[:, 0].tolist()
        assert changed == [front + order.index(8 * line + column)]
    torch.testing.assert_close(model(picture).last_hidden_state, own, atol=1e-5, rtol=1e-5)

    mra_plugin.patch(model, **ALL, token_order="tiles")
    torch.testing.assert_close(model(picture).last_hidden_state, own, atol=1e-4, rtol=1e-4)
    some = [
        model(picture).last_hidden_state
        for order in ("tiles", None)
        if mra_plugin.patch(model, **FEW, token_order=order)
    ]
    assert not torch.allclose(*some, atol=1e-3)
    assert mra_plugin.unpatch(model)(picture).last_hidden_state.equal(own)


@torch.no_grad()
def test_other_resolutions_and_gradients() -> None:
    model = make_vision("dinov3_vit")
    seen = [picture_of("dinov3_vit", *sides) for sides in ((5, 12), (9, 7))]
    own = [model(picture).last_hidden_state for picture in seen]
    mra_plugin.patch(model, **ALL, token_order="tiles")
    for picture, expected in zip(seen, own, strict=True):
        out = model(picture).last_hidden_state
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)

    def gradient() -> Tensor:
        picture = seen[0].clone().requires_grad_()
        with torch.enable_grad():
            out = model(picture).last_hidden_state
            return torch.autograd.grad(out.square().sum(), picture)[0]

    ordered = gradient()
    mra_plugin.unpatch(model)
    torch.testing.assert_close(ordered, gradient(), atol=1e-2, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov3_vit", "vit", "vjepa2"])
@torch.no_grad()
def test_compiled(name: str) -> None:
    model = mra_plugin.patch(make_vision(name), **FEW, token_order="tiles")
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    picture = picture_of(name)
    expected = model(picture).last_hidden_state
    torch.testing.assert_close(compiled(picture).last_hidden_state, expected)


@torch.no_grad()
def test_checkpoints_keep_the_order(tmp_path: Path) -> None:
    model = mra_plugin.patch(make_vision("vit"), **FEW, token_order="tiles")
    picture = picture_of("vit")
    expected = model(picture).last_hidden_state
    model.save_pretrained(tmp_path)
    assert "_token_arrangement" not in (tmp_path / "config.json").read_text()
    again = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    assert again.config.mra == {**FEW, "token_order": "tiles"}
    assert again(picture).last_hidden_state.equal(expected)
    mra_plugin.unpatch(model).save_pretrained(tmp_path)
    flagged = AutoModel.from_pretrained(
        tmp_path,
        add_pooling_layer=False,
        attn_implementation="mra",
        mra={**FEW, "token_order": "tiles"},
    ).eval()
    assert flagged(picture).last_hidden_state.equal(expected)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"token_order must be .tiles.* got 'rows'"):
        mra_plugin.patch(make_vision("vit"), token_order="rows")
    with pytest.raises(ValueError, match=r"vision encoders .*vit.* BertModel holds none"):
        mra_plugin.patch(make("bert"), token_order="tiles")
    model = mra_plugin.patch(make_vision("vit"), token_order="tiles")
    assert model.config.mra["salient_keys"]  # the preset, as without it
    with pytest.raises(ValueError, match="output_attentions=True can't be served with token_order"):
        model(picture_of("vit"), output_attentions=True)
